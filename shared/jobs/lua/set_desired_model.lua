-- wish: say which model the worker of a seat should hold.
-- ARGV: now, worker's name, model ('' for none), by ('operator' | 'idle'), model that must be wished now ('' is a model here
--       too; '*' for any)
-- Keys: seats; for 'idle' the worker's jobs and the queue of its model; channel worker:<w>
-- Returns the seat as JSON, '' when there is no such seat, or 'no' when another model is wished or, for 'idle', work has come.
-- Promise: the wish is one field, written whole; the worker follows it whenever it hears of it. Wishing twice changes nothing.

local text = redis.call('HGET', PREFIX .. 'assignments', ARGV[2])
if not text then return '' end
local seat = cjson.decode(text)
if ARGV[5] ~= '*' and seat.desired_model ~= ARGV[5] then return 'no' end
local worker = worker_of(ARGV[2])
if ARGV[4] == 'idle' and (queue_length('gpu.' .. seat.desired_model) > 0 or (worker and has_running_jobs(worker))) then return 'no' end
if seat.desired_model ~= ARGV[3] or seat.requested_by ~= ARGV[4] then set_desired_model(ARGV[2], seat, ARGV[3], ARGV[4], worker) end
return cjson.encode(seat)
