-- open_batch: create a batch, a job that counts other jobs.
-- Uses: batch, idempotency
-- Arguments: id, owner, idempotency, fingerprint, seal_ms:number, record{}
--   idempotency is the Idempotency-Key of the request, or empty.
-- Keys: job:<id>, its events and index; idempotency:<owner>:<key>
-- Returns {'created' | 'exists' | 'replayed' | 'conflict', the id of the batch}.
-- Promise: the same id, or the same key and fingerprint, creates one batch. Maintenance seals an open batch once all its jobs have
-- ended and none has joined or ended for seal_ms, so that a batch ends even if its client is gone.

local outcome, earlier = find_earlier(id, owner, idempotency, fingerprint)
if outcome then return { outcome, earlier } end
local seal_at = digits(now + seal_ms)
redis.call('HSET', job_key(id), 'id', id, 'owner', owner, 'kind', 'batch', 'status', 'in_progress', 'session', '',
  'created_at', timestamp, 'started_at', timestamp, 'expires_at', seal_at, 'attempt', 0,
  'lost', 0, 'retries', 0, 'worker', '', 'seq', 0, 'phase', 'running', 'phase_at', timestamp, 'children', 0,
  'queue', '', 'waiting', '', 'sealed', '0', 'seal_ms', seal_ms)
set_fields(job_key(id), record)
redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':jobs', 0, id)
redis.call('SADD', PREFIX .. 'owners', owner)
redis.call('ZADD', PREFIX .. 'jobs:due', seal_at, id)
count('submitted', 'batch')
emit(id, 'started', 0, '{}')
remember_request(id, owner, idempotency, fingerprint)
return { 'created', id }
