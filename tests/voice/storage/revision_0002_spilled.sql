BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE events (
	session_id TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	event TEXT NOT NULL, 
	PRIMARY KEY (session_id, number)
);
INSERT INTO "events" VALUES('voice-5557ab4cb95082662fcc9826',1,'{"event_id":"evt-60f30720f2e49323","session_id":"voice-5557ab4cb95082662fcc9826","event_type":"session_started","payload":{"state":"created","stt_engine":"none"},"timestamp_ms":1796033751329,"metadata":{"audit_trace_id":"audit-954970f91dc2fe1a"},"number":1}');
INSERT INTO "events" VALUES('voice-5557ab4cb95082662fcc9826',2,'{"event_id":"evt-aa666b4b957c05c7","session_id":"voice-5557ab4cb95082662fcc9826","event_type":"stt_fallback","payload":{"asked":"azure","runs":"none","reason":"no engine for ''azure'' is installed"},"timestamp_ms":1796033751329,"metadata":{"audit_trace_id":"audit-954970f91dc2fe1a"},"number":2}');
INSERT INTO "events" VALUES('voice-5557ab4cb95082662fcc9826',3,'{"event_id":"evt-677b6422518695eb","session_id":"voice-5557ab4cb95082662fcc9826","event_type":"state_changed","payload":{"state":"active"},"timestamp_ms":1796033751343,"metadata":{"audit_trace_id":"audit-954970f91dc2fe1a"},"number":3}');
CREATE TABLE evidence (
	seq INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	request_id TEXT NOT NULL, 
	record TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "evidence" VALUES(1,'ev-d2630a29c6ed6a424882abef-1','voice-5557ab4cb95082662fcc9826','{"connector_type":"custom","created_at":"2026-11-30T10:15:51.280698Z","id":"ev-d2630a29c6ed6a424882abef-1","metadata":{"audit_trace_id":"audit-954970f91dc2fe1a","number":1,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_created","request_id":"voice-5557ab4cb95082662fcc9826","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-5557ab4cb95082662fcc9826","stt_engine":"none","stt_fallback":"no engine for ''azure'' is installed","stt_provider":"azure"},"response_summary":{"state":"created"},"status":"success"}','0000000000000000000000000000000000000000000000000000000000000000','7274e9b174263d4e489ec70db5f2b71124d747564cdf161a40a7e83a60fdcd73');
INSERT INTO "evidence" VALUES(2,'ev-d2630a29c6ed6a424882abef-2','voice-5557ab4cb95082662fcc9826','{"connector_type":"custom","created_at":"2026-11-30T10:15:51.332080Z","id":"ev-d2630a29c6ed6a424882abef-2","metadata":{"audit_trace_id":"audit-954970f91dc2fe1a","number":2,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_active","request_id":"voice-5557ab4cb95082662fcc9826","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-5557ab4cb95082662fcc9826","stt_engine":"none","stt_fallback":"no engine for ''azure'' is installed","stt_provider":"azure"},"response_summary":{"state":"active"},"status":"success"}','7274e9b174263d4e489ec70db5f2b71124d747564cdf161a40a7e83a60fdcd73','ee70fa7929ca00c7df2232715fd66cb137fc33b29364422646ee075abf8c3857');
CREATE TABLE idempotency_keys (
	principal TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	attempt TEXT NOT NULL, 
	expires_at_ms BIGINT NOT NULL, 
	status INTEGER, 
	headers TEXT, 
	body BLOB, 
	PRIMARY KEY (principal, "key")
);
CREATE TABLE sessions (
	session_id TEXT NOT NULL, 
	project_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	snapshot TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	PRIMARY KEY (session_id)
);
INSERT INTO "sessions" VALUES('voice-5557ab4cb95082662fcc9826','shop','active',1796033751279,'{"session_id":"voice-5557ab4cb95082662fcc9826","project_id":"shop","provider":"local","stt_provider":"azure","state":"active","created_at":"2026-11-30T10:15:51.279000Z","last_activity_at":"2026-11-30T10:15:51.329000Z","risk_tier":"low","policy_verdict":{"status":"approved","reason_code":"VOICE_SESSION_APPROVED","hint":"approved with risk tier low","metadata":{"risk_level":"low","factors":[],"provider":"local","stt_provider":"azure","admin_token_required":false,"admin_token_valid":false}},"audit_trace_id":"audit-954970f91dc2fe1a","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"stt_engine":"none","audio_format":{"encoding":"pcm_s16le","sample_rate":16000,"channels":1},"recording_enabled":false,"resumable":false,"result":null}','22987-7cac7a4a');
CREATE TABLE streams (
	session_id TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	token_id TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	PRIMARY KEY (session_id), 
	UNIQUE (hash)
);
CREATE TABLE tokens (
	id TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	name TEXT NOT NULL, 
	role TEXT NOT NULL, 
	project TEXT, 
	created_at_ms BIGINT NOT NULL, 
	expires_at_ms BIGINT, 
	revoked_at_ms BIGINT, 
	PRIMARY KEY (id), 
	CONSTRAINT ck_tokens_role CHECK (role IN ('admin', 'operator', 'auditor', 'project')), 
	CONSTRAINT ck_tokens_project CHECK ((role = 'project') = (project IS NOT NULL)), 
	UNIQUE (hash)
);
CREATE INDEX ix_evidence_request_id ON evidence (request_id);
CREATE INDEX ix_sessions_state ON sessions (state, created_at);
CREATE INDEX ix_sessions_project_id ON sessions (project_id, created_at);
CREATE INDEX ix_sessions_created_at ON sessions (created_at, session_id);
CREATE INDEX ix_idempotency_keys_expires_at_ms ON idempotency_keys (expires_at_ms);
COMMIT;
