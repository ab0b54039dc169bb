-- demand: find a seat for each model that jobs wait for and nobody has_running_jobs. The janitor's move.
-- ARGV: now, alive_ms (how lately a worker must have told that it lives), patience_ms (how long a seat whose worker is silent
--       still counts as taken), on_demand ('1': seats may be given to another model), unschedulable_ms (how long jobs wait for a worker
--       that could hold their model, when no living one could), limit (jobs ended in one go)
-- Keys: queues with their owners and jobs; workers and their jobs; seats; unschedulable:<queue> (since when nobody could hold it)
-- Returns {flat list of model and worker's name, ids of jobs that were ended, queues to wake}.
-- Promise: a seat is given up only if its worker lives, runs nothing, and nothing queue_length for its model; of such seats an empty
-- one comes first, then one whose model could not be loaded, then the one that was used least recently. Each model gets one
-- seat, and none while a worker of it may come back. Jobs of a model that no living worker could hold end `failed`.

local alive_ms, patience_ms, unschedulable_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6])
local given, ended, wakeups = {}, {}, {}

local waiting = {}
for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do
  if string.sub(queue, 1, 4) == 'gpu.' and queue_length(queue) > 0 then waiting[#waiting + 1] = string.sub(queue, 5) end
end
if #waiting == 0 then return { given, ended, wakeups } end
table.sort(waiting)

local seats, names, workers = {}, {}, {}
local flat = redis.call('HGETALL', PREFIX .. 'assignments')
for i = 1, #flat, 2 do
  seats[flat[i]] = cjson.decode(flat[i + 1])
  names[#names + 1] = flat[i]
end
table.sort(names)
flat = redis.call('HGETALL', PREFIX .. 'workers')
for i = 1, #flat, 2 do
  local worker = cjson.decode(flat[i + 1])
  if seats[worker.name] and now - worker.seen_at <= alive_ms then workers[worker.name] = worker end
end

local function is_held(model)
  for name, seat in pairs(seats) do
    if seat.desired_model == model and (workers[name] or now - seat.seen_at <= patience_ms) then return true end
  end
  return false
end

-- How gladly a seat is given up, the smaller the sooner; nil for not at all.
local function reluctance(name)
  local seat, worker = seats[name], workers[name]
  if not worker or (worker.model or '') ~= seat.desired_model or has_running_jobs(worker) then return nil end
  if seat.desired_model == '' then return -2 end
  if contains(seat.pinned, seat.desired_model) or queue_length('gpu.' .. seat.desired_model) > 0 then return nil end
  if worker.phase == 'failed' then return -1 end
  if worker.phase ~= 'ready' then return nil end
  return worker.seen_at - (worker.idle_ms or 0)
end

local function fail_unschedulable_jobs(model)
  local queue = 'gpu.' .. model
  local key = PREFIX .. 'unschedulable:' .. queue
  local since = redis.call('GET', key)
  redis.call('SET', key, since or digits(now), 'PX', unschedulable_ms + 60000)
  if now - tonumber(since or now) < unschedulable_ms then return end
  local message = 'no living worker can hold model ' .. model .. ': GET /admin/gpus says why'
  for _, owner in ipairs(redis.call('ZRANGE', PREFIX .. 'queue:' .. queue .. ':owners', 0, -1)) do
    for _, id in ipairs(redis.call('ZRANGE', PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner, 0, limit - 1)) do
      local attempt = get(id, 'attempt')[1]
      if attempt then
        finish(id, 'failed', attempt, fail_fields('model_not_served', message), { code = 'model_not_served' }, wakeups)
        ended[#ended + 1] = id
      end
    end
  end
end

for _, model in ipairs(waiting) do
  if not is_held(model) then
    local best, least, possible = nil, math.huge, next(workers) == nil
    for _, name in ipairs(names) do
      if workers[name] and contains(seats[name].loadable_models, model) then
        possible = true
        local cost = reluctance(name)
        if cost and cost < least then best, least = name, cost end
      end
    end
    if not possible then
      fail_unschedulable_jobs(model)
    else
      redis.call('DEL', PREFIX .. 'unschedulable:gpu.' .. model)
      if best and ARGV[4] == '1' then
        set_desired_model(best, seats[best], model, 'demand', workers[best])
        given[#given + 1] = model
        given[#given + 1] = best
      end
    end
  end
end
return { given, ended, wakeups }
