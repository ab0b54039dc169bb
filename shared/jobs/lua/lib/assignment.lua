-- Workers and the models that they should hold.
-- Uses: queue
--
-- Keys:
--   workers                  hash    worker -> its description at its latest heartbeat, in JSON
--   assignments              hash    name of a gpu worker -> its model assignment, in JSON
--   unschedulable:<q>        string  since when jobs of this queue wait for a model that no live worker can load
--   models                   hash    every model that a worker has ever served -> time of the first heartbeat with it

local ASSIGNMENTS = PREFIX .. 'assignments'

-- An assignment, or nil.
local function read_assignment(name)
  local text = redis.call('HGET', ASSIGNMENTS, name)
  return text and cjson.decode(text) or nil
end

local function write_assignment(name, assignment)
  local text = cjson.encode(assignment)
  redis.call('HSET', ASSIGNMENTS, name, text)
  return text
end

-- The queues of a model: generations, and jobs that need only its tokenizer.
local function queues_of_model(model) return { 'gpu.' .. model, 'text.' .. model } end

-- The model of a queue, or nil.
local function model_of_queue(queue) return string.match(queue, '^gpu%.(.+)$') or string.match(queue, '^text%.(.+)$') end

local function has_waiting_jobs(model)
  for _, queue in ipairs(queues_of_model(model)) do
    if queue_length(queue) > 0 then return true end
  end
  return false
end

local function has_running_jobs(worker)
  return redis.call('EXISTS', PREFIX .. 'worker:' .. worker.id .. ':jobs') == 1
end

-- The process of this name with the newest heartbeat, or nil.
local function worker_named(name)
  local newest = nil
  for _, text in ipairs(redis.call('HVALS', PREFIX .. 'workers')) do
    local worker = cjson.decode(text)
    if worker.name == name and (not newest or worker.seen_at > newest.seen_at) then newest = worker end
  end
  return newest
end

-- Set the model that a worker should hold, and notify the worker if there is one.
local function set_desired_model(name, assignment, model, requested_by, worker)
  assignment.desired_model, assignment.requested_by, assignment.requested_at = model, requested_by, now
  write_assignment(name, assignment)
  if worker then redis.call('PUBLISH', PREFIX .. 'worker:' .. worker.id, cjson.encode({ desired_model = model })) end
end
