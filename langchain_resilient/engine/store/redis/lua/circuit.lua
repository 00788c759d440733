-- The twin of engine/circuit.py: same names, same arithmetic. Read that file for what and why.
-- Made when it is needed, see `lazily`. Times are integer microseconds and stay below 2^53, so doubles hold them exactly.

local RACED_PROBE_INTERVAL = 5000000
local JITTER_PERMILLE = 100
local BUCKETS = 10

local Circuit = lazily(function(Circuit)
  function Circuit.new()
    return {
      phase = "closed", generation = 0, failures_in_a_row = 0, buckets = {}, ["until"] = 0, reopened = 0, successes = 0, permits = {},
      raced_at = -RACED_PROBE_INTERVAL, broke_midway = 0, for_slowness = 0,
    }
  end

  -- The live permits: all whose time is not over.
  local function living(state, now)
    local live = {}
    for _, permit in ipairs(state.permits) do
      if permit[2] > now then live[#live + 1] = permit end
    end
    return live
  end

  local function begin(state, phase, now, reopened)
    local stays = phase ~= "closed"
    return {
      phase = phase, generation = math.max(state.generation + 1, math.floor(now / 1000)), failures_in_a_row = 0, buckets = {},
      ["until"] = 0, reopened = reopened, successes = 0, permits = {}, raced_at = state.raced_at,
      broke_midway = stays and state.broke_midway or 0, for_slowness = stays and state.for_slowness or 0,
    }
  end

  function Circuit.reset(state, now)
    return begin(state, "closed", now, 0)
  end

  -- Microseconds until the circuit may let one more call in. settings: interval (of raced probes), half_open_max_calls.
  function Circuit.wait_for_place(state, settings, now, raced, early)
    if state.phase == "closed" then return 0 end
    if state.phase == "open" and not early and now < state["until"] then return state["until"] - now end
    local healing = state.phase == "half_open" and state.successes > 0
    if (raced and not healing) or (early and state.phase == "open") then
      local spaced = state.raced_at + settings.interval - now
      if spaced > 0 then return spaced end
    end
    if state.phase == "open" then return 0 end
    local live = living(state, now)
    if #live < math.min(1 + state.successes, settings.half_open_max_calls) then return 0 end
    local soonest = live[1][2]
    for _, permit in ipairs(live) do soonest = math.min(soonest, permit[2]) end
    return soonest - now
  end

  function Circuit.enter(state, now, attempt, lease, spaced)
    if state.phase == "open" then state = begin(state, "half_open", now, state.reopened) end
    state.permits = living(state, now)
    state.permits[#state.permits + 1] = {attempt, now + lease}
    if spaced then state.raced_at = now end
    return state
  end

  function Circuit.renew(state, now, attempt, lease)
    for _, permit in ipairs(state.permits) do
      if permit[1] == attempt and permit[2] > now then permit[2] = now + lease end
    end
  end

  local function open(state, settings, now, outcome, floor, spread, reopened)
    local longest = math.max(settings.recovery_cap, settings.recovery_timeout)
    local seconds = math.min(settings.recovery_timeout * settings.recovery_growth ^ reopened, longest)
    local base = math.floor(seconds * 1000000)
    local pause = math.max(floor, base + math.floor(base * spread / (1000000 / JITTER_PERMILLE)))
    local opened = begin(state, "open", now, reopened)
    opened["until"] = now + pause
    opened.broke_midway = outcome == "interruption" and 1 or 0
    opened.for_slowness = outcome == "success" and 1 or 0
    return opened
  end

  local function add(buckets, settings, now, failed, slow)
    local index = math.floor(now / settings.slice)
    local last = buckets[#buckets]
    if last and last[1] >= index then
      last[2], last[3], last[4] = last[2] + 1, last[3] + failed, last[4] + slow
      return buckets
    end
    local live = {}
    for _, bucket in ipairs(buckets) do
      if bucket[1] > index - BUCKETS then live[#live + 1] = bucket end
    end
    live[#live + 1] = {index, 1, failed, slow}
    return live
  end

  local function trips(in_a_row, buckets, settings)
    if in_a_row >= settings.failure_threshold then return true end
    local newest = buckets[#buckets][1]
    local calls, failures, slow = 0, 0, 0
    for _, bucket in ipairs(buckets) do
      if bucket[1] > newest - BUCKETS then
        calls, failures, slow = calls + bucket[2], failures + bucket[3], slow + bucket[4]
      end
    end
    return calls >= settings.minimum_calls and math.max(failures, slow) / calls >= settings.failure_rate
  end

  local function count(state, settings, now, outcome, slow, floor, spread)
    local failed = outcome ~= "success" and 1 or 0
    local in_a_row = failed == 1 and state.failures_in_a_row + 1 or 0
    local buckets = add(state.buckets, settings, now, failed, slow)
    state.failures_in_a_row, state.buckets = in_a_row, buckets
    state["until"], state.reopened, state.successes, state.permits = 0, 0, 0, {}
    state.broke_midway, state.for_slowness = 0, 0
    if (failed == 0 and slow == 0) or not trips(in_a_row, buckets, settings) then return state end
    return open(state, settings, now, outcome, floor, spread, 0)
  end

  local function probed(state, settings, now, outcome, attempt, slow, floor, spread)
    local held, others = false, {}
    for _, permit in ipairs(state.permits) do
      if permit[1] ~= attempt then
        others[#others + 1] = permit
      elseif permit[2] > now then
        held = true
      end
    end
    if not held then return state end
    if outcome == "neutral" then
      state.permits = others
      return state
    end
    if outcome ~= "success" or slow == 1 then
      return open(state, settings, now, outcome, floor, spread, state.reopened + 1)
    end
    if state.successes + 1 < settings.half_open_max_calls then
      state.permits, state.successes = others, state.successes + 1
      return state
    end
    return begin(state, "closed", now, 0)
  end

  function Circuit.report(state, settings, now, outcome, generation, attempt, slow, floor, spread)
    if generation ~= state.generation or state.phase == "open" then return state end
    if state.phase == "closed" then
      if outcome == "neutral" then return state end
      return count(state, settings, now, outcome, slow, floor, spread)
    end
    return probed(state, settings, now, outcome, attempt, slow, floor, spread)
  end
end)
