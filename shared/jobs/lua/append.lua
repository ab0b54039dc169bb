-- append: put events of running attempts on their streams, for many jobs at once.
-- ARGV: now, then for each event: job id, attempt, index, type, data (JSON), phase
--       index counts an attempt's events from 1, in order; phase '' leaves the job's phase as it is.
-- Keys: the records and their events
-- Returns one word an event: 'ok' | 'lost'.
-- Promise: a stale attempt writes nothing; an event sent twice is written once.

local words = {}
for i = 2, #ARGV, 6 do
  local id, attempt, index = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local key = job_key(id)
  local job = get(id, 'attempt', 'status', 'written', 'first_token_at', 'phase')
  if job[1] ~= attempt or job[2] ~= 'in_progress' then
    words[#words + 1] = 'lost'
  else
    if index > tonumber(job[3] or 0) then
      local kind, data, phase = ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
      redis.call('HSET', key, 'written', index)
      if kind == 'progress' then redis.call('HSET', key, 'progress', data) end
      if kind == 'delta' then
        redis.call('HSET', key, 'shown', '1')
        if not job[4] then redis.call('HSET', key, 'first_token_at', digits(now)) end
      end
      if phase ~= '' and phase ~= job[5] then redis.call('HSET', key, 'phase', phase, 'phase_at', digits(now)) end
      emit(id, kind, attempt, data)
    end
    words[#words + 1] = 'ok'
  end
end
return words
