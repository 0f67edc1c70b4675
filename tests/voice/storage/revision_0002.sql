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
INSERT INTO "events" VALUES('voice-e7a7d650edb73f704aa42f6f',1,'{"event_id":"evt-c4b4f7582b0d32b0","session_id":"voice-e7a7d650edb73f704aa42f6f","event_type":"session_started","payload":{"state":"created","stt_engine":"pocketsphinx"},"timestamp_ms":1796011157985,"metadata":{"audit_trace_id":"audit-3d29eed59f886fd2"},"number":1}');
INSERT INTO "events" VALUES('voice-e7a7d650edb73f704aa42f6f',2,'{"event_id":"evt-1230c6516ec280bf","session_id":"voice-e7a7d650edb73f704aa42f6f","event_type":"state_changed","payload":{"state":"active"},"timestamp_ms":1796011158000,"metadata":{"audit_trace_id":"audit-3d29eed59f886fd2"},"number":2}');
INSERT INTO "events" VALUES('voice-e7a7d650edb73f704aa42f6f',3,'{"event_id":"evt-fbc347af9ba0dd16","session_id":"voice-e7a7d650edb73f704aa42f6f","event_type":"state_changed","payload":{"state":"stopping"},"timestamp_ms":1796011158023,"metadata":{"audit_trace_id":"audit-3d29eed59f886fd2"},"number":3}');
INSERT INTO "events" VALUES('voice-e7a7d650edb73f704aa42f6f',4,'{"event_id":"evt-1c40927b2d78a0df","session_id":"voice-e7a7d650edb73f704aa42f6f","event_type":"stt_final","payload":{"text":"go forward ten meters","start_ms":200,"end_ms":1710,"words":[{"text":"go","start_ms":200,"end_ms":410,"confidence":0.9601190755935026},{"text":"forward","start_ms":410,"end_ms":880,"confidence":0.9990005497800716},{"text":"ten","start_ms":880,"end_ms":1090,"confidence":0.13566046148977645},{"text":"meters","start_ms":1090,"end_ms":1710,"confidence":0.9999000099990001}]},"timestamp_ms":1796011161095,"metadata":{"audit_trace_id":"audit-3d29eed59f886fd2"},"number":4}');
INSERT INTO "events" VALUES('voice-e7a7d650edb73f704aa42f6f',5,'{"event_id":"evt-fc24f7f067f8b1a8","session_id":"voice-e7a7d650edb73f704aa42f6f","event_type":"transcript_ready","payload":{"text":"go forward ten meters"},"timestamp_ms":1796011161118,"metadata":{"audit_trace_id":"audit-3d29eed59f886fd2"},"number":5}');
INSERT INTO "events" VALUES('voice-e7a7d650edb73f704aa42f6f',6,'{"event_id":"evt-8ed59fbda63cb394","session_id":"voice-e7a7d650edb73f704aa42f6f","event_type":"session_stopped","payload":{"reason":"stopped"},"timestamp_ms":1796011161118,"metadata":{"audit_trace_id":"audit-3d29eed59f886fd2"},"number":6}');
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
INSERT INTO "evidence" VALUES(1,'ev-62708f48563257c29ba2ff6b-1','voice-e7a7d650edb73f704aa42f6f','{"connector_type":"custom","created_at":"2026-11-30T03:59:17.973014Z","id":"ev-62708f48563257c29ba2ff6b-1","metadata":{"audit_trace_id":"audit-3d29eed59f886fd2","number":1,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_created","request_id":"voice-e7a7d650edb73f704aa42f6f","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-e7a7d650edb73f704aa42f6f","stt_engine":"pocketsphinx","stt_fallback":"","stt_provider":"pocketsphinx"},"response_summary":{"state":"created"},"status":"success"}','0000000000000000000000000000000000000000000000000000000000000000','1c7160937131af8f993300bbb1384efb5e9d74b20077a0c027fb3d33abfc9dff');
INSERT INTO "evidence" VALUES(2,'ev-62708f48563257c29ba2ff6b-2','voice-e7a7d650edb73f704aa42f6f','{"connector_type":"custom","created_at":"2026-11-30T03:59:17.988831Z","id":"ev-62708f48563257c29ba2ff6b-2","metadata":{"audit_trace_id":"audit-3d29eed59f886fd2","number":2,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_active","request_id":"voice-e7a7d650edb73f704aa42f6f","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-e7a7d650edb73f704aa42f6f","stt_engine":"pocketsphinx","stt_fallback":"","stt_provider":"pocketsphinx"},"response_summary":{"state":"active"},"status":"success"}','1c7160937131af8f993300bbb1384efb5e9d74b20077a0c027fb3d33abfc9dff','0dea760276393f55175343974445caef4098be025be3b71522d01c4c1df59282');
INSERT INTO "evidence" VALUES(3,'ev-62708f48563257c29ba2ff6b-3','voice-e7a7d650edb73f704aa42f6f','{"connector_type":"custom","created_at":"2026-11-30T03:59:18.001041Z","id":"ev-62708f48563257c29ba2ff6b-3","metadata":{"audit_trace_id":"audit-3d29eed59f886fd2","number":3,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_stopping","request_id":"voice-e7a7d650edb73f704aa42f6f","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-e7a7d650edb73f704aa42f6f","stt_engine":"pocketsphinx","stt_fallback":"","stt_provider":"pocketsphinx"},"response_summary":{"reason":"stopped","state":"stopping"},"status":"success"}','0dea760276393f55175343974445caef4098be025be3b71522d01c4c1df59282','f1e85f0f5598199b6419fa844615291d1a775555890f3c31f9407cdedc4466ca');
INSERT INTO "evidence" VALUES(4,'ev-62708f48563257c29ba2ff6b-final','voice-e7a7d650edb73f704aa42f6f','{"connector_type":"custom","created_at":"2026-11-30T03:59:21.099269Z","id":"ev-62708f48563257c29ba2ff6b-final","metadata":{"audit_trace_id":"audit-3d29eed59f886fd2","number":4,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_stopped","request_id":"voice-e7a7d650edb73f704aa42f6f","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-e7a7d650edb73f704aa42f6f","stt_engine":"pocketsphinx","stt_fallback":"","stt_provider":"pocketsphinx"},"response_summary":{"result":{"drained":true,"frames":{"accepted":94,"accounted":94,"bytes":59840,"digest":"6d6275f99a860f2c840ee62173fd4e0f690a75a6875fda16ed5c5d3af9d2009f","dropped":{},"leftover_bytes":0,"recorded":0,"transcribed":94,"untranscribed":{}},"quality":{"clipped_share":0.0,"level_dbfs":-21.0,"longest_pause_ms":1,"peak_dbfs":-7.5,"silent_share":0.1595744680851064},"reason":"stopped","recording":null,"stopped_at":"2026-11-30T03:59:21.096000Z","transcript":"go forward ten meters"},"state":"stopped"},"status":"success"}','f1e85f0f5598199b6419fa844615291d1a775555890f3c31f9407cdedc4466ca','ec72f28ec9750ea8e8ded6e690c17c87ac9c46990dc3d730f59fab6dd902b72c');
INSERT INTO "evidence" VALUES(5,'ev-8604a819f5cbcdf44e745f7f-1','voice-fada4a98a69450fe19200482','{"connector_type":"custom","created_at":"2026-11-30T03:59:21.124503Z","id":"ev-8604a819f5cbcdf44e745f7f-1","metadata":{"audit_trace_id":"audit-440c03476f6893b4","number":1,"risk_tier":"high","verdict":"ADMIN_TOKEN_REQUIRED"},"operation":"session_denied","request_id":"voice-fada4a98a69450fe19200482","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"caller":"Grace Hopper","requires_data_access":true},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-fada4a98a69450fe19200482","stt_engine":"pocketsphinx","stt_fallback":"","stt_provider":"pocketsphinx"},"response_summary":{"hint":"risk tier high (from provider local, raised by requires_data_access) needs a valid admin token; create one with `agentos-voice token create`","refused":"ADMIN_TOKEN_REQUIRED","state":null},"status":"require_admin"}','ec72f28ec9750ea8e8ded6e690c17c87ac9c46990dc3d730f59fab6dd902b72c','bef7d1ad0951c3b88fd8249da9c08dfbef833040a2e6e87660a539699a413648');
INSERT INTO "evidence" VALUES(6,'ev-of-a-host','mail-1','{"connector_type":"web_fetch","created_at":"2026-11-22T00:00:00Z","id":"ev-of-a-host","metadata":{"audit_trace_id":"audit-host","risk_tier":"low","who":"Alan Turing"},"operation":"fetch","request_id":"mail-1","request_summary":{"url":"https://example.org/ada"},"response_summary":null,"status":"success"}','bef7d1ad0951c3b88fd8249da9c08dfbef833040a2e6e87660a539699a413648','c299c011061203ae810eff14aacdabde66a0b635d645d08268d61f7644258bf5');
INSERT INTO "evidence" VALUES(7,'ev-e7b282621d2fe5edd8f7a144-1','gateway','{"connector_type":"custom","created_at":"2026-11-30T03:59:22.462219Z","id":"ev-e7b282621d2fe5edd8f7a144-1","metadata":{"audit_trace_id":"audit-82da4565d50fec63","risk_tier":"low"},"operation":"access_refused","request_id":"gateway","request_summary":{"client":"192.0.2.7","detail":"Ada''s laptop","method":"GET","reason":"token","route":"/v1/sessions"},"response_summary":null,"status":"denied"}','c299c011061203ae810eff14aacdabde66a0b635d645d08268d61f7644258bf5','f996ce3fbdb9356fcada8af267e529e0e8332440ebc7e41cf70a263da5b0da04');
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
INSERT INTO "sessions" VALUES('voice-e7a7d650edb73f704aa42f6f','shop','stopped',1796011157971,'{"session_id":"voice-e7a7d650edb73f704aa42f6f","project_id":"shop","provider":"local","stt_provider":"pocketsphinx","state":"stopped","created_at":"2026-11-30T03:59:17.971000Z","last_activity_at":"2026-11-30T03:59:17.989000Z","risk_tier":"low","policy_verdict":{"status":"approved","reason_code":"VOICE_SESSION_APPROVED","hint":"approved with risk tier low","metadata":{"risk_level":"low","factors":[],"provider":"local","stt_provider":"pocketsphinx","admin_token_required":false,"admin_token_valid":false}},"audit_trace_id":"audit-3d29eed59f886fd2","metadata":{"caller":"Ada Lovelace","from_number":"+43 660 1234567"},"stt_engine":"pocketsphinx","audio_format":{"encoding":"pcm_s16le","sample_rate":16000,"channels":1},"recording_enabled":false,"resumable":false,"result":{"reason":"stopped","drained":true,"frames":{"accepted":94,"accounted":94,"recorded":0,"transcribed":94,"dropped":{},"untranscribed":{},"bytes":59840,"leftover_bytes":0,"digest":"6d6275f99a860f2c840ee62173fd4e0f690a75a6875fda16ed5c5d3af9d2009f"},"transcript":"go forward ten meters","recording":null,"quality":{"level_dbfs":-21.0,"peak_dbfs":-7.5,"clipped_share":0.0,"silent_share":0.1595744680851064,"longest_pause_ms":1},"stopped_at":"2026-11-30T03:59:21.096000Z"}}','20470-722e9260');
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
