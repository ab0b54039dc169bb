-- open_batch: create a batch, a job that counts other jobs.
-- Uses: batch, idempotency, limits, job_index
-- Arguments: id, owner, idempotency, fingerprint, seal_ms:number, limit:number, record{}
--   idempotency is the Idempotency-Key of the request, or empty; limit is that of owners without one of their own.
-- Keys: job:<id>, its events and index; idempotency:<owner>:<key>; owner:<owner>:open_batches and limits
-- Returns {'created' | 'exists' | 'replayed' | 'conflict', the id of the batch}, or {'full', the limit of open batches}.
-- Promise: the same id, or the same key and fingerprint, creates one batch. Maintenance seals an open batch once all its jobs have
-- ended and none has joined or ended for seal_ms, so that a batch ends even if its client is gone.

local outcome, earlier = find_earlier(id, owner, idempotency, fingerprint)
if outcome then return { outcome, earlier } end
local most = limit_of(owner, 'open_batches', limit)
if redis.call('SCARD', open_batches_key(owner)) >= most then return { 'full', digits(most) } end
local seal_at = digits(now + seal_ms)
redis.call('HSET', job_key(id), 'id', id, 'owner', owner, 'kind', 'batch', 'status', 'in_progress', 'session', '',
  'created_at', timestamp, 'started_at', timestamp, 'expires_at', seal_at, 'attempt', 0,
  'lost', 0, 'retries', 0, 'worker', '', 'seq', 0, 'phase', 'running', 'phase_at', timestamp, 'children', 0,
  'queue', '', 'waiting', '', 'sealed', '0', 'seal_ms', seal_ms)
set_fields(job_key(id), record)
add_to_index(id, index_fields(id))
redis.call('SADD', PREFIX .. 'owners', owner)
redis.call('SADD', open_batches_key(owner), id)
redis.call('ZADD', PREFIX .. 'jobs:due', seal_at, id)
count('submitted', 'batch')
emit(id, 'started', 0, '{}')
remember_request(id, owner, idempotency, fingerprint)
return { 'created', id }
