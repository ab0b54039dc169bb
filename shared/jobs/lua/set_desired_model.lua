-- set_desired_model: set the model that a worker should hold.
-- Uses: assignment
-- Flags: allow-oom
-- Arguments: name, model, requested_by, expected
--   model is empty for none; requested_by is 'operator' | 'idle'; expected is the model that must be the desired one now
--   (empty for none, '*' for any).
-- Keys: assignments; for 'idle' the worker's jobs and the queue of its model; channel worker:<w>
-- Returns the assignment as JSON, '' when there is none, or 'no' when another model is desired or, for 'idle', there is work.
-- Promise: the desired model is one field, written whole; the worker follows it as soon as it reads it. Setting the same model
-- twice changes nothing.

local assignment = read_assignment(name)
if not assignment then return '' end
local current = assignment.desired_model
if expected ~= '*' and current ~= expected then return 'no' end
local worker = worker_named(name)
if requested_by == 'idle' and (has_waiting_jobs(current) or (worker and has_running_jobs(worker))) then return 'no' end
if current ~= model or assignment.requested_by ~= requested_by then
  set_desired_model(name, assignment, model, requested_by, worker)
end
return cjson.encode(assignment)
