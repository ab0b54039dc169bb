-- Changes of a job's status.
-- Uses: job_index, queue, concurrency, attempt, batch, document, delivery, histogram, request_batch, response, session, token_limits

local MAX_CHILDREN_PER_CANCEL = 1000

-- Give the successors of a job that has ended to its predecessor if that still runs, else make them ready.
local function release_successors(id, predecessor)
  local key = job_key(id) .. ':successors'
  local successors = redis.call('SMEMBERS', key)
  for _, successor in ipairs(successors) do
    if redis.call('HGET', job_key(successor), 'status') == 'queued' then
      if predecessor then
        redis.call('SADD', job_key(predecessor) .. ':successors', successor)
        redis.call('HSET', job_key(successor), 'after', predecessor)
      else
        make_ready(successor)
      end
    end
  end
  if #successors > 0 then redis.call('DEL', key) end
end

-- What retention needs of a job.
local RETENTION_FIELDS = { 'retention_ms', 'failed_retention_ms' }

-- How long a job is kept that ends now, in ms. The result must outlive its deliveries. Dead letters wait for an operator, but
-- other jobs that did not complete are kept for a shorter time.
local function retention(id, job, status, deliveries)
  local kept = job.retention_ms
  if status ~= 'completed' and not redis.call('ZSCORE', PREFIX .. 'jobs:dead_letters', id) then
    kept = job.failed_retention_ms or kept
  end
  return math.max(tonumber(kept), deliveries > 0 and MIN_RETENTION_MS or 0)
end

-- Fields that only a job needs that has not ended.
local OPEN_FIELDS = {
  'written', 'shown', 'event_limit', 'event_retention_ms', 'max_attempts', 'max_retries', 'failed_retention_ms', 'keep_input',
  'outage_at', 'output_seq', 'user_cost', 'usage_days', 'reserved', 'followed',
}

-- Drop what an ended job no longer needs. Its stream takes more memory than its record, and few clients read it late.
local function compact(id, job)
  local key = job_key(id)
  if is_set(job.event_retention_ms) then redis.call('PEXPIRE', key .. ':events', job.event_retention_ms) end
  redis.call('HDEL', key, unpack(OPEN_FIELDS))
  if job.output_seq then redis.call('DEL', output_key(id)) end
end

-- How long a job is kept whose session was deleted, in ms: its client may still wait for the answer.
local ORPHANED_TURN_MS = 60000

-- The text that clients have received: all deltas since the answer was last restarted.
local function written_text(id)
  local texts = {}
  for _, entry in ipairs(redis.call('XRANGE', job_key(id) .. ':events', '-', '+')) do
    local event = as_table(entry[2])
    if event.type == 'restart' then texts = {} end
    if event.type == 'delta' then
      -- One with half a character is left out, as it must not keep a job from ending.
      local is_valid, delta = pcall(cjson.decode, event.data)
      texts[#texts + 1] = is_valid and delta.text or nil
    end
  end
  return table.concat(texts)
end

-- Write into the session how a turn ended. One that did not complete keeps what was written of its answer.
local function finish_turn(id, session, status, has_deliveries)
  local job = fields(id, 'owner', 'created_at', 'started_at', 'first_token_at', 'error')
  local times = { ended_at = now }
  for _, name in ipairs({ 'created_at', 'started_at', 'first_token_at' }) do times[name] = tonumber(job[name] or nil) end
  local text = status ~= 'completed' and written_text(id) or ''
  if end_turn(job.owner, session, id, status, times, text, job.error) or has_deliveries then return end
  redis.call('ZADD', PREFIX .. 'jobs:ended', 'LT', digits(now + ORPHANED_TURN_MS), id)
end

-- The times of a completed job, to note. No client waits for a line of a request batch, and its deltas are written late.
local function observed_times(job)
  local labels, run, duration, first_token = job.kind .. ' ' .. (job.model or ''), '', '', ''
  if job.started_at then run = observed('run', labels, (now - tonumber(job.started_at)) / 1000) end
  if is_set(job.line_of) then return run end
  local created_at = tonumber(job.created_at)
  duration = observed('duration', labels, (now - created_at) / 1000)
  if job.first_token_at then first_token = observed('first_token', labels, (tonumber(job.first_token_at) - created_at) / 1000) end
  return run .. duration .. first_token
end

-- Note what became of a URL: the status of the job's result, or that of a job without one.
local function note_fetch(id, status)
  local result = redis.call('GET', result_key(id))
  local fetched = result and cjson.decode(result) or {}
  local outcome, started_at = fetched.status or status, fields(id, 'started_at').started_at
  local took = is_set(started_at) and observed('fetch', outcome, (now - tonumber(started_at)) / 1000) or ''
  note(counted('fetches', outcome), counted_times(digits(fetched.bytes or 0), 'fetched bytes'), took)
end

-- The only way into a final status. `changes` are further fields of the record, `code` is an error's. `job` is the record, if the caller
-- has read it, and `noted` is for the metrics.
finish = function(id, status, attempt, changes, code, job, noted)
  local key = job_key(id)
  job = job or record_of(id)
  if job.status == 'queued' then
    dequeue(id, job.queue, job.owner, digest_of_user(job.end_user))
    if redis.call('EXISTS', queue_key(job.queue, 'owners')) == 0 then redis.call('DEL', pace_key(job.queue)) end
    concurrency.leave(id, job.owner, job.concurrency_key)
  end
  changes = changes or {}
  local used, sequence = changes.usage or job.usage, tonumber(job.seq) + 1
  changes.ended_at, changes.waiting, changes.phase, changes.phase_at, changes.seq = timestamp, '', status, timestamp, sequence
  set_status(id, job, status, changes)
  used = write_usage(job.owner, job.kind, job.model, job.end_user, used, job.usage_days)
  if job.reserved then settle_tokens(job.reserved, used) end
  if is_set(job.document) then
    local problem = redis.call('HGET', key, 'error')
    fail_document(job.document, id, problem and cjson.decode(problem).message or 'Its job is ' .. status .. '.')
  end
  redis.call('ZREM', PREFIX .. 'jobs:due', id)
  add_event(id, sequence, job.event_limit, 'ended', attempt, cjson.encode({ status = status, code = code }))
  redis.call('PUBLISH', PREFIX .. 'ended', id)
  note(counted('ended', job.kind, status), is_set(job.queue) and counted('left', job.queue, status) or '',
    status == 'completed' and observed_times(job) or '', noted or '')
  if job.kind == 'fetch' then note_fetch(id, status) end
  -- The same prompt would be too long again, and prompts that are too long are the largest.
  if (status == 'completed' and job.keep_input == '0') or code == 'prompt_too_long' then drop_input(id, job.owner) end
  local deliveries, event = create_deliveries(id, job, 'job.' .. status), request_batch_event(id, job, status) or response_event(id, job, status)
  if event then deliveries = deliveries + create_deliveries(id, job, event) end
  redis.call('ZADD', PREFIX .. 'jobs:ended', now + retention(id, job, status, deliveries), id)
  if is_set(job.session) then finish_turn(id, job.session, status, deliveries > 0) end
  compact(id, job)
  -- The successors of a job that ends while it still waits for another would overtake that other if they became ready.
  local predecessor = nil
  if job.waiting == 'after' and not FINAL[fields(job.after, 'status').status or 'completed'] then predecessor = job.after end
  release_successors(id, predecessor)
  if job.kind == 'batch' then redis.call('SREM', open_batches_key(job.owner), id) end
  if is_set(job.parent) then count_in_batch(job.parent, id, job.kind, status) end
end

local function fail(id, attempt, code, message)
  local problem = { code = code, message = message, param = cjson.null, type = 'job_error' }
  finish(id, 'failed', attempt, { error = cjson.encode(problem) }, code)
end

local function time_out(id, attempt)
  fail(id, attempt, 'timeout', 'The job did not end within its timeout.')
end

local cancel

-- Cancel the jobs of a batch, a limited number at a time; reap goes on until none is left, even if the caller is gone.
local function cancel_batch(id)
  local key = job_key(id)
  redis.call('HSET', key, 'sealed', '1')
  for _, child in ipairs(redis.call('SRANDMEMBER', key .. ':open', MAX_CHILDREN_PER_CANCEL)) do
    if not fields(child, 'cancel_requested_at').cancel_requested_at then cancel(child) end
  end
  if fields(id, 'status').status == 'in_progress' then
    redis.call('ZADD', PREFIX .. 'jobs:due', now + 1000, id)
    finish_batch_if_done(id)
  end
  return FINAL[fields(id, 'status').status] and 'cancelled' or 'requested'
end

-- Cancel a job at its owner's request: end it while it is queued, else ask its worker to stop. Returns 'cancelled' | 'requested'.
cancel = function(id)
  local job = fields(id, 'status', 'attempt', 'worker', 'cancel_requested_at', 'kind')
  if not job.cancel_requested_at then redis.call('HSET', job_key(id), 'cancel_requested_at', timestamp) end
  if job.status == 'queued' then
    if must_close_output(id) then return 'requested' end
    finish(id, 'cancelled', job.attempt)
    return 'cancelled'
  end
  if job.kind == 'batch' then return cancel_batch(id) end
  -- This message stops the worker at once. If it gets lost, the next renewal of the lease returns the same some seconds later.
  redis.call('PUBLISH', PREFIX .. 'worker:' .. job.worker, cjson.encode({ cancel = id, attempt = tonumber(job.attempt) }))
  return 'requested'
end

-- Return a job in progress to its queue.
local function requeue(id, attempt, delay_ms, why, found)
  set_status(id, index_fields(id), 'queued', { worker = '', phase = 'queued', phase_at = timestamp })
  local data = cjson.encode({ why = why, delay_ms = delay_ms })
  if is_set(found) then data = data:sub(1, -2) .. ',"file_search":' .. found .. '}' end
  emit(id, 'requeued', attempt, data)
  if delay_ms > 0 then postpone(id, now + delay_ms) else enqueue(id) end
end

-- The worker of an attempt has died or stopped renewing its lease.
local function mark_attempt_lost(id)
  local job = fields(id, 'attempt', 'worker', 'lost', 'max_attempts', 'cancel_requested_at', 'heartbeat_at', 'usage', unpack(RELEASE_FIELDS))
  local attempt, lost = job.attempt, tonumber(job.lost) + 1
  local record = read_attempt(id, attempt)
  close_attempt(id, record, 'lost')
  release_from_worker(id, job.worker, job)
  local usage = add_lost_time(job.usage, (tonumber(job.heartbeat_at or '') or record.started_at) - record.started_at)
  redis.call('HSET', job_key(id), 'lost', lost, 'usage', usage)
  count('attempts lost')
  emit(id, 'attempt_lost', attempt, cjson.encode({ attempt = tonumber(attempt), worker = job.worker }))
  if is_set(job.cancel_requested_at) and not must_close_output(id) then
    finish(id, 'cancelled', attempt)
  elseif lost >= tonumber(job.max_attempts) then
    redis.call('ZADD', PREFIX .. 'jobs:dead_letters', timestamp, id)
    count('dead_letters added')
    fail(id, attempt, 'worker_lost', 'Every worker that ran this job died (' .. lost .. (lost == 1 and ' attempt, on ' or ' attempts, the last on ') ..
      job.worker .. '). Read the log of that worker, then replay the job.')
  else
    -- The first loss is most often the worker's fault, so it costs no time. Later ones delay a job that kills its workers.
    local delay_ms = 0
    if lost > 1 then delay_ms = math.min(1000 * 2 ^ (lost - 1), 60000) end
    requeue(id, attempt, delay_ms, 'worker_lost')
  end
end
