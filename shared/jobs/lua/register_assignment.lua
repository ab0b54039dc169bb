-- seat: a gpu worker takes its seat, or tells anew what it could hold.
-- ARGV: now, worker's name, model it is started with ('' for none), description (JSON object: devices, offers, pinned, refuses)
-- Keys: seats (hash worker's name -> its seat)
-- Returns the seat as JSON; its `wish` is the model that the worker should hold now, '' for none.
-- Promise: a wish outlives its worker, however that ends; a worker that is started with another model than when the wish was
-- made has been told otherwise, and the wish is void.

local seat = cjson.decode(ARGV[4])
local was = redis.call('HGET', PREFIX .. 'assignments', ARGV[2])
if was then was = cjson.decode(was) end
if was and was.home == ARGV[3] then
  seat.desired_model, seat.requested_by, seat.requested_at = was.desired_model, was.requested_by, was.requested_at
else
  seat.desired_model, seat.requested_by, seat.requested_at = ARGV[3], 'start', now
end
seat.home, seat.seen_at = ARGV[3], now
local text = cjson.encode(seat)
redis.call('HSET', PREFIX .. 'assignments', ARGV[2], text)
return text
