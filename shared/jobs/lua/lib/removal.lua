-- Removal of jobs that have ended.
-- Uses: job_index, delivery, request_batch, response

-- Delete a job with everything that contains a part of it.
local function remove_job(id, owner)
  local key = job_key(id)
  for _, delivery in ipairs(redis.call('ZRANGE', key .. ':deliveries', 0, -1)) do
    local authority = redis.call('HGET', delivery_key(delivery), 'authority')
    if authority then
      redis.call('ZREM', ready_key(authority), delivery)
      redis.call('SREM', busy_key(authority), delivery)
    end
    redis.call('DEL', delivery_key(delivery), delivery_key(delivery) .. ':job')
    redis.call('ZREM', PREFIX .. 'deliveries:due', delivery)
    redis.call('ZREM', PREFIX .. 'deliveries:pending', delivery)
    redis.call('ZREM', PREFIX .. 'owner:' .. owner .. ':deliveries', delivery)
  end
  remove_from_index(id, owner)
  add_bytes(id, owner, -tonumber(redis.call('HGET', key, 'bytes') or 0))
  redis.call('DEL', key, input_key(id), result_key(id), response_key(id), output_key(id), requests_key(id), log_key(id), key .. ':events',
    key .. ':successors', key .. ':deliveries', key .. ':written')
  redis.call('ZREM', request_batches_key(owner), id)
  redis.call('ZREM', PREFIX .. 'jobs:ended', id)
  redis.call('ZREM', PREFIX .. 'jobs:dead_letters', id)
end
