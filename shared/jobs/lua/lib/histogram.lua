-- Histograms for metrics, counted by the transitions themselves, so that every event is observed once.
-- Uses: core
--
-- Keys:
--   stats:histograms   hash   "<name> <label> ... <bound>" -> observations up to this bound (in seconds, 'inf' above the last) and above the
--                             one before it; "<name> <label> ... sum" -> their sum in microseconds

-- Upper bounds in seconds. For duration, first_token and per_token, they include the bounds that OpenTelemetry recommends.
local BOUNDS = {
  wait = { 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400 },
  run = { 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400 },
  duration = { 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36, 3600 },
  first_token = { 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300 },
  per_token = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5 },
  fetch = { 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800 },
  delivery = { 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600, 14400, 43200, 86400, 259200 },
}

-- A time in seconds to note. `labels` are words separated by a space.
local function observed(name, labels, seconds)
  seconds = math.max(0, seconds)
  local bound = 'inf'
  for _, candidate in ipairs(BOUNDS[name]) do
    if seconds <= candidate then
      bound = candidate
      break
    end
  end
  local series = 'stats:histograms\n' .. name .. ' ' .. labels .. ' '
  return series .. bound .. '\n1\n' .. series .. 'sum\n' .. digits(seconds * 1e6) .. '\n'
end
