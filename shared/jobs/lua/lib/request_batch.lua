-- Request batches: jobs that run the requests of a file, each as a job of its own. shared/openai/batches.py lists the fields.
-- Uses: job
--
-- Keys:
--   job:<id>:requests               hash     the state of a request batch
--   job:<id>:written                string   a bit for each line of the input whose outcome is in the output
--   owner:<owner>:request_batches   zset     ids of the owner's request batches, all with score 0

local REQUEST_BATCH = 'request_batch'

local function requests_key(id) return job_key(id) .. ':requests' end

local function request_batches_key(owner) return PREFIX .. 'owner:' .. owner .. ':request_batches' end

-- Whether a worker must still close the output of a job that is to be cancelled: requests that have ended keep their answers.
local function must_close_output(id)
  local job = fields(id, 'kind', 'started_at')
  return job.kind == REQUEST_BATCH and is_set(job.started_at)
end

-- The event of an ended request batch, such as 'batch.completed', in the words of OpenAI's API; nil for other jobs.
local function request_batch_event(id, job, status)
  if job.kind ~= REQUEST_BATCH then return nil end
  local outcome = redis.call('HGET', requests_key(id), 'outcome')
  return 'batch.' .. (status == 'completed' and outcome or status)
end
