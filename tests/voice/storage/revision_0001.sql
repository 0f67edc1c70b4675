BEGIN TRANSACTION;
CREATE TABLE admin_tokens (
	id TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	expires_at_ms BIGINT, 
	revoked_at_ms BIGINT, 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);
INSERT INTO "admin_tokens" VALUES('tok-d06c5f3f156d4a93','031f8113be2b7f238553c83071d8379368279b84a21f612b3a7b0a6b1700c2d9','stands',1795417722320,NULL,NULL);
INSERT INTO "admin_tokens" VALUES('tok-4d6fa8e9ea19ee09','dd9e08b1fe446cb17bd2a69cfa07ae033ca6f1d950e11ca10d54a68165725ef3','expired',1795417722321,1795417722322,NULL);
INSERT INTO "admin_tokens" VALUES('tok-ac51fb9474467c22','a231fa0c7c277b0d49aab9ab7d2164013ad9881e9187efa026670521700a9808','revoked',1795417722321,NULL,1795417722323);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE events (
	session_id TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	event TEXT NOT NULL, 
	PRIMARY KEY (session_id, number)
);
INSERT INTO "events" VALUES('voice-277d9d08b0a7d2c08c0fd73a',1,'{"event_id":"evt-cd574a6c0c15d774","session_id":"voice-277d9d08b0a7d2c08c0fd73a","event_type":"session_started","payload":{"state":"created","stt_engine":"none"},"timestamp_ms":1795417722354,"metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb"},"number":1}');
INSERT INTO "events" VALUES('voice-277d9d08b0a7d2c08c0fd73a',2,'{"event_id":"evt-79e07a953cfd75ab","session_id":"voice-277d9d08b0a7d2c08c0fd73a","event_type":"stt_fallback","payload":{"asked":"whisper_local","runs":"none","reason":"no engine for ''whisper_local'' is installed"},"timestamp_ms":1795417722354,"metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb"},"number":2}');
INSERT INTO "events" VALUES('voice-277d9d08b0a7d2c08c0fd73a',3,'{"event_id":"evt-4d56698392ece0be","session_id":"voice-277d9d08b0a7d2c08c0fd73a","event_type":"state_changed","payload":{"state":"active"},"timestamp_ms":1795417722357,"metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb"},"number":3}');
INSERT INTO "events" VALUES('voice-277d9d08b0a7d2c08c0fd73a',4,'{"event_id":"evt-ea542b864e64c01a","session_id":"voice-277d9d08b0a7d2c08c0fd73a","event_type":"state_changed","payload":{"state":"stopping"},"timestamp_ms":1795417722358,"metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb"},"number":4}');
INSERT INTO "events" VALUES('voice-277d9d08b0a7d2c08c0fd73a',5,'{"event_id":"evt-ba8ef20151374fd9","session_id":"voice-277d9d08b0a7d2c08c0fd73a","event_type":"transcript_ready","payload":{"text":""},"timestamp_ms":1795417722360,"metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb"},"number":5}');
INSERT INTO "events" VALUES('voice-277d9d08b0a7d2c08c0fd73a',6,'{"event_id":"evt-5a362959d5932be3","session_id":"voice-277d9d08b0a7d2c08c0fd73a","event_type":"session_stopped","payload":{"reason":"stopped"},"timestamp_ms":1795417722360,"metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb"},"number":6}');
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
INSERT INTO "evidence" VALUES(1,'ev-ea020fe78e84aa22ae1c851a-1','voice-277d9d08b0a7d2c08c0fd73a','{"connector_type":"custom","created_at":"2026-11-23T07:08:42.351810Z","id":"ev-ea020fe78e84aa22ae1c851a-1","metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb","number":1,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_created","request_id":"voice-277d9d08b0a7d2c08c0fd73a","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"note":"from revision 0001"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-277d9d08b0a7d2c08c0fd73a","stt_engine":"none","stt_fallback":"no engine for ''whisper_local'' is installed","stt_provider":"whisper_local"},"response_summary":{"state":"created"},"status":"success"}','0000000000000000000000000000000000000000000000000000000000000000','3d630f3304278974a9e602005d4f97401126b3c12586c9aeedac89c6313fb193');
INSERT INTO "evidence" VALUES(2,'ev-ea020fe78e84aa22ae1c851a-2','voice-277d9d08b0a7d2c08c0fd73a','{"connector_type":"custom","created_at":"2026-11-23T07:08:42.354977Z","id":"ev-ea020fe78e84aa22ae1c851a-2","metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb","number":2,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_active","request_id":"voice-277d9d08b0a7d2c08c0fd73a","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"note":"from revision 0001"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-277d9d08b0a7d2c08c0fd73a","stt_engine":"none","stt_fallback":"no engine for ''whisper_local'' is installed","stt_provider":"whisper_local"},"response_summary":{"state":"active"},"status":"success"}','3d630f3304278974a9e602005d4f97401126b3c12586c9aeedac89c6313fb193','90de471c135330c7d3b030741081606ab392e1599491f550fd39b6eddffeff36');
INSERT INTO "evidence" VALUES(3,'ev-ea020fe78e84aa22ae1c851a-3','voice-277d9d08b0a7d2c08c0fd73a','{"connector_type":"custom","created_at":"2026-11-23T07:08:42.357223Z","id":"ev-ea020fe78e84aa22ae1c851a-3","metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb","number":3,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_stopping","request_id":"voice-277d9d08b0a7d2c08c0fd73a","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"note":"from revision 0001"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-277d9d08b0a7d2c08c0fd73a","stt_engine":"none","stt_fallback":"no engine for ''whisper_local'' is installed","stt_provider":"whisper_local"},"response_summary":{"reason":"stopped","state":"stopping"},"status":"success"}','90de471c135330c7d3b030741081606ab392e1599491f550fd39b6eddffeff36','bcecbd9282eb6daeeddf402937742f7c007156325d23feeba7a1d8ad17faf5d9');
INSERT INTO "evidence" VALUES(4,'ev-ea020fe78e84aa22ae1c851a-final','voice-277d9d08b0a7d2c08c0fd73a','{"connector_type":"custom","created_at":"2026-11-23T07:08:42.358767Z","id":"ev-ea020fe78e84aa22ae1c851a-final","metadata":{"audit_trace_id":"audit-97d7fd94e3ae0eeb","number":4,"risk_tier":"low","verdict":"VOICE_SESSION_APPROVED"},"operation":"session_stopped","request_id":"voice-277d9d08b0a7d2c08c0fd73a","request_summary":{"audio_format":"pcm_s16le 16000 Hz, 1 channel","metadata":{"note":"from revision 0001"},"project_id":"shop","provider":"local","recording_enabled":false,"session_id":"voice-277d9d08b0a7d2c08c0fd73a","stt_engine":"none","stt_fallback":"no engine for ''whisper_local'' is installed","stt_provider":"whisper_local"},"response_summary":{"result":{"drained":true,"frames":{"accepted":5,"accounted":5,"bytes":3200,"digest":"5a312281df4bd8dfbb4d4a94ad0bf44d01bb8cfced1206b90e21b4ca0568cdb1","dropped":{},"leftover_bytes":0,"recorded":0,"transcribed":0,"untranscribed":{"no_engine":5}},"quality":{"clipped_share":0.0,"level_dbfs":null,"longest_pause_ms":0,"peak_dbfs":null,"silent_share":1.0},"reason":"stopped","recording":null,"stopped_at":"2026-11-23T07:08:42.358000Z","transcript":""},"state":"stopped"},"status":"success"}','bcecbd9282eb6daeeddf402937742f7c007156325d23feeba7a1d8ad17faf5d9','ce7dde4ec57dfb67960bf72dd62d04556198c33554ff22ba8ad7f108cb4f4ba6');
CREATE TABLE sessions (
	session_id TEXT NOT NULL, 
	project_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	snapshot TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	PRIMARY KEY (session_id)
);
INSERT INTO "sessions" VALUES('voice-277d9d08b0a7d2c08c0fd73a','shop','stopped',1795417722351,'{"session_id":"voice-277d9d08b0a7d2c08c0fd73a","project_id":"shop","provider":"local","stt_provider":"whisper_local","state":"stopped","created_at":"2026-11-23T07:08:42.351000Z","last_activity_at":"2026-11-23T07:08:42.355000Z","risk_tier":"low","policy_verdict":{"status":"approved","reason_code":"VOICE_SESSION_APPROVED","hint":"approved with risk tier low","metadata":{"risk_level":"low","factors":[],"provider":"local","stt_provider":"whisper_local","admin_token_required":false,"admin_token_valid":false}},"audit_trace_id":"audit-97d7fd94e3ae0eeb","metadata":{"note":"from revision 0001"},"stt_engine":"none","audio_format":{"encoding":"pcm_s16le","sample_rate":16000,"channels":1},"recording_enabled":false,"resumable":false,"result":{"reason":"stopped","drained":true,"frames":{"accepted":5,"accounted":5,"recorded":0,"transcribed":0,"dropped":{},"untranscribed":{"no_engine":5},"bytes":3200,"leftover_bytes":0,"digest":"5a312281df4bd8dfbb4d4a94ad0bf44d01bb8cfced1206b90e21b4ca0568cdb1"},"transcript":"","recording":null,"quality":{"level_dbfs":null,"peak_dbfs":null,"clipped_share":0.0,"silent_share":1.0,"longest_pause_ms":0},"stopped_at":"2026-11-23T07:08:42.358000Z"}}','29960-727743fc');
CREATE INDEX ix_evidence_request_id ON evidence (request_id);
CREATE INDEX ix_sessions_state ON sessions (state, created_at);
CREATE INDEX ix_sessions_project_id ON sessions (project_id, created_at);
COMMIT;
