-- register_assignment: record which models a starting gpu worker can load, and read the one that it should hold.
-- Uses: assignment
-- Flags: allow-oom
-- Arguments: name, startup_model, description
--   name is the worker's; startup_model is the model that it is started with, or empty; description is a JSON object with
--   devices, loadable_models, pinned and unloadable_models.
-- Keys: assignments
-- Returns the assignment as JSON; its desired_model is empty for none.
-- Promise: the desired model outlives the worker, however that ends. Starting the worker with another startup model than
-- before replaces it.

local assignment, earlier = cjson.decode(description), read_assignment(name)
if earlier and earlier.startup_model == startup_model then
  assignment.desired_model, assignment.requested_by = earlier.desired_model, earlier.requested_by
  assignment.requested_at = earlier.requested_at
else
  assignment.desired_model, assignment.requested_by, assignment.requested_at = startup_model, 'start', now
end
assignment.startup_model, assignment.seen_at = startup_model, now
return write_assignment(name, assignment)
