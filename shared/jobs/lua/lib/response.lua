-- Responses of /v1: jobs whose request and conversation are stored with them.
-- Uses: job
--
-- Keys:
--   job:<id>:response   string   what is stored of a response, in JSON; shared/openai/responses/store.py knows the fields

local function response_key(id) return job_key(id) .. ':response' end

local function write_response(id, owner, response)
  redis.call('SET', response_key(id), response)
  add_bytes(id, owner, #response)
end

-- The event of an ended response that ran in the background, in the words of OpenAI's API; nil for other jobs.
local function response_event(id, job, status)
  if job.response ~= 'background' then return nil end
  if status == 'cancelled' then return 'response.cancelled' end
  if status ~= 'completed' then return 'response.failed' end
  -- The texts in a result cannot contain this, as their quotes are escaped.
  local is_cut = string.find(redis.call('GET', result_key(id)) or '', '"finish_reason":"length"', 1, true)
  return is_cut and 'response.incomplete' or 'response.completed'
end
