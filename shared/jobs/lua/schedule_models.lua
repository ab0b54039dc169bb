-- schedule_models: choose a worker for each model that has waiting jobs and that no worker holds.
-- Uses: assignment, transition
-- Flags: allow-oom
-- Arguments: alive_ms:number, patience_ms:number, on_demand, unschedulable_ms:number, limit:number
--   alive_ms is the maximum age of a live worker's heartbeat; patience_ms is how long the assignment of a silent worker still
--   counts; on_demand is '1' if workers may be given another model; unschedulable_ms is how long jobs wait for a worker that
--   can load their model; limit bounds the jobs of one owner that are ended in one call.
-- Keys: paused; queues with their owners and jobs; workers and their jobs; assignments; unschedulable:<queue>
-- Returns {flat list of model and worker's name, ids of jobs that were ended, queues to wake}.
-- Promise: a worker gives up its model only if it lives, runs nothing, and nothing waits for its model. An empty worker comes
-- first, then one that could not load its model, then the one that has been idle for longest. Each model gets one worker, and
-- none while a worker of it may come back. A drained worker counts as none, and a paused model is not loaded. Jobs of a model that no live worker can load become `failed`.

local scheduled, ended = {}, {}

local waiting = {}
for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do
  local model = model_of_queue(queue)
  if model then
    -- A model that is paused is not loaded for its tokenizer either.
    if queue_length(queue) > 0 and not is_paused('queue', queue) and not is_paused('queue', 'gpu.' .. model) then
      if not contains(waiting, model) then waiting[#waiting + 1] = model end
    else
      -- Otherwise the next job would be failed for the time that earlier ones have waited.
      redis.call('DEL', PREFIX .. 'unschedulable:' .. queue)
    end
  end
end
if #waiting == 0 then return { scheduled, ended, wakeups } end
table.sort(waiting)

local assignments, names, workers = {}, {}, {}
for name, text in pairs(as_table(redis.call('HGETALL', ASSIGNMENTS))) do
  assignments[name] = cjson.decode(text)
  names[#names + 1] = name
end
table.sort(names)
for _, text in ipairs(redis.call('HVALS', PREFIX .. 'workers')) do
  local worker = cjson.decode(text)
  if is_paused('worker', worker.name) then
    assignments[worker.name] = nil
  elseif assignments[worker.name] and now - worker.seen_at <= alive_ms then
    workers[worker.name] = worker
  end
end

local function is_held(model)
  for name, assignment in pairs(assignments) do
    if assignment.desired_model == model and (workers[name] or now - assignment.seen_at <= patience_ms) then return true end
  end
  return false
end

-- The cost of giving up a worker's model: the worker with the lowest is chosen. nil when it must keep its model.
local function eviction_cost(name)
  local assignment, worker = assignments[name], workers[name]
  local model = assignment.desired_model
  if not worker or (worker.model or '') ~= model or has_running_jobs(worker) then return nil end
  if model == '' then return -2 end
  if contains(assignment.pinned, model) or has_waiting_jobs(model) then return nil end
  if worker.phase == 'failed' then return -1 end
  if worker.phase ~= 'ready' then return nil end
  return worker.seen_at - (worker.idle_ms or 0)
end

local function fail_unschedulable_jobs(model, queue)
  if queue_length(queue) == 0 then return end
  local key = PREFIX .. 'unschedulable:' .. queue
  local since = redis.call('GET', key)
  redis.call('SET', key, since or timestamp, 'PX', unschedulable_ms + 60000)
  if now - tonumber(since or now) < unschedulable_ms then return end
  local message = "No running worker can load model '" .. model .. "'. GET /admin/gpus shows the reason."
  for _, owner in ipairs(redis.call('ZRANGE', queue_key(queue, 'owners'), 0, -1)) do
    for _, id in ipairs(redis.call('ZRANGE', owner_jobs_key(queue, owner), 0, limit - 1)) do
      local attempt = fields(id, 'attempt').attempt
      if attempt then
        fail(id, attempt, 'model_not_served', message)
        ended[#ended + 1] = id
      end
    end
  end
end

-- The cheapest worker that can load a model, and whether any live worker can.
local function choose_worker(model)
  local best, least, possible = nil, math.huge, next(workers) == nil
  for _, name in ipairs(names) do
    if workers[name] and contains(assignments[name].loadable_models, model) then
      possible = true
      local cost = eviction_cost(name)
      if cost and cost < least then best, least = name, cost end
    end
  end
  return best, possible
end

for _, model in ipairs(waiting) do
  if not is_held(model) then
    local best, possible = choose_worker(model)
    if not possible then
      for _, queue in ipairs(queues_of_model(model)) do fail_unschedulable_jobs(model, queue) end
    else
      for _, queue in ipairs(queues_of_model(model)) do redis.call('DEL', PREFIX .. 'unschedulable:' .. queue) end
      if best and on_demand == '1' then
        set_desired_model(best, assignments[best], model, 'demand', workers[best])
        scheduled[#scheduled + 1] = model
        scheduled[#scheduled + 1] = best
      end
    end
  end
end
return { scheduled, ended, wakeups }
