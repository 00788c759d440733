-- The twin of MemoryStore.admit: all candidates in one step. Read engine/store/memory.py for what and why.

local LINE_LIMITS = {
  rpm = true, tpm = true, itpm = true, otpm = true, rpd = true, tpd = true, usd_per_day = true, concurrency = true, line = true,
}
local OPEN = {circuit_open = true, half_open = true}
local NONE = -1

local function unruffled(it)
  return it.route.circuit.phase == "closed" and it.route.override == "" and it.account.blocked_until <= now and it.account.waiting == 0
end

-- What the request takes from each dimension; or nil, the one it does not fit into, and the wait.
local function measure(it)
  if it.too_big ~= "" then return nil, it.too_big, NONE end
  local scale, taken, longest, tightest = Account.scale(it.account), {}, 0, ""
  for place, dimension in ipairs(it.dimensions) do
    local wait, tat, charged = Quota.take(dimension, Account.tat(it.account, dimension.name), now, scale)
    if wait > longest then longest, tightest = wait, dimension.name end
    taken[place] = {tat, charged}
  end
  if longest > 0 then return nil, tightest, longest end
  return taken
end

local function full(it)
  if it.most == 0 then return nil end
  redis.call("ZREMRANGEBYSCORE", it.leases, "-inf", text(now))
  if redis.call("ZCARD", it.leases) < it.most then return nil end
  return tonumber(redis.call("ZRANGE", it.leases, 0, 0, "WITHSCORES")[2]) - now
end

-- What a healthy day does not need.
local Unwell

-- A place where nothing bars everyone, if the request fits the limits; else nil, why not, and the wait.
local function take(it, ask, early, last)
  local taken, reason, wait = {}, nil, nil
  if #it.dimensions > 0 then
    taken, reason, wait = measure(it)
    if not taken then return nil, reason, wait end
  end
  local pause = full(it)
  if pause then return nil, "concurrency", pause end
  if not it.affords then return nil, "budget", NONE end
  local charged = {}
  for place, dimension in ipairs(it.dimensions) do
    it.account.tats[dimension.name] = taken[place][1]
    charged[place] = text(taken[place][2])
    it.account.dirty = true
  end
  if it.most > 0 then
    redis.call("ZADD", it.leases, text(now + ask.lease), ask.attempt)
    redis.call("PEXPIRE", it.leases, HOUR)
  end
  local probe, raced, was_open = false, false, false
  if it.route.circuit.phase ~= "closed" and not last then
    was_open = it.route.circuit.phase == "open"
    probe, raced = Unwell.enter(it, ask, early)
  end
  return {
    "granted", it.index, text(it.route.circuit.generation), probe and 1 or 0, raced and 1 or 0, (probe and was_open) and 1 or 0,
    (probe and it.route.circuit.broke_midway == 1) and 1 or 0, text(now), table.concat(charged, ","), "",
  }
end

local function try(it, ask, early)
  if not unruffled(it) then
    local reason, wait = Unwell.barred(it, ask, early)
    if reason then return nil, reason, wait end
  end
  return take(it, ask, early, false)
end

Unwell = lazily(function(Unwell)
  -- µs until the request would fit all of its dimensions, were nobody before it.
  local function soonest(it)
    local taken, _, wait = measure(it)
    return taken and 0 or math.max(wait, 0)
  end

  function Unwell.barred(it, ask, early)
    local route, account = it.route, it.account
    if route.override == "forced_open" then return "forced_open", NONE end
    if route.override == "" then
      if account.blocked_until > now then return account.blocked_reason, account.blocked_until - now end
      if route.circuit.phase ~= "closed" then
        local pause = Circuit.wait_for_place(route.circuit, it, now, it.raced and not early, early)
        if pause > 0 then return route.circuit.phase == "half_open" and "half_open" or "circuit_open", pause end
      end
    end
    local front = Line.front(it.line, account, ask.attempt)
    if front and front ~= ask.attempt then return "line", soonest(it) end
    return nil
  end

  -- Take a probe's place in a circuit that is not closed; whether there is one, and whether to race it.
  function Unwell.enter(it, ask, early)
    local route = it.route
    local ruled = route.override == ""
    local raced = ruled and it.raced
    local watched = route.override == "metrics_only"
    if not ruled and not (watched and Circuit.wait_for_place(route.circuit, it, now, false, false) == 0) then return false, false end
    local phase = route.circuit.phase
    route.circuit = Circuit.enter(route.circuit, now, ask.attempt, ask.lease, raced or early)
    route.dirty = true
    if route.circuit.phase ~= phase then
      route.reason = "probe"
      changed()
    end
    return true, raced
  end

  function Unwell.refused(refusals, rejected)
    local words = {}
    for _, refusal in ipairs(refusals) do
      words[#words + 1], words[#words + 2] = refusal.reason, text(refusal.wait)
    end
    return {"refused", rejected, table.concat(words, ",")}
  end

  function Unwell.try_spare(it, ask)
    if not unruffled(it) or it.route.circuit.failures_in_a_row > 0 then return nil, "unwell", NONE end
    if it.unfit then return nil, "slow", NONE end
    return take(it, ask, false, false)
  end

  function Unwell.leave_lines(ask)
    local it = ask.items[ask.placed]
    if it and Line.holds(it.line, ask.entry) then Line.leave(it.line, it.account, ask.entry) end
  end

  -- A place in the candidate's line, if the wait fits the request's patience; its own place if it stands in one already.
  function Unwell.queue(it, reason, wait, ask)
    if ask.patience <= 0 or wait == NONE then return nil end
    local stands = ask.items[ask.placed]
    local entry, lapses
    if stands and Line.holds(stands.line, ask.entry) then
      if stands.line ~= it.line then return nil end
      entry = ask.entry
      lapses = select(2, standing(entry))
    else
      if reason ~= "concurrency" and wait > it.longest then return nil end
      lapses = now + it.longest
      entry = ask.attempt .. "|" .. text(lapses)
      Line.append(it.line, it.account, entry)
    end
    if lapses <= now then
      Line.leave(it.line, it.account, entry)
      return nil
    end
    return {"queued", it.index, text(Line.pause(it.line, ask.attempt, lapses, wait)), entry}
  end

  -- Places of those who were refused, sorted by who may be asked soonest.
  local function by_wait(places, refusals)
    table.sort(places, function(one, other)
      local a, b = math.max(refusals[one].wait, 0), math.max(refusals[other].wait, 0)
      if a == b then return one < other end
      return a < b
    end)
    return places
  end

  function Unwell.last_resort(ask, refusals)
    if ask.mode == "spare" then return Unwell.refused(refusals, 0) end
    local all_open, curable, everyone = true, {}, {}
    for place = 1, ask.count do
      local it, refusal = ask.items[place], refusals[place]
      local front = Line.front(it.line, it.account, ask.attempt)
      if OPEN[refusal.reason] and it.route.circuit.for_slowness == 1 and not (front and front ~= ask.attempt) then
        local granted = take(it, ask, false, true)
        if granted then return granted end
      end
      all_open = all_open and OPEN[refusal.reason]
      everyone[place] = place
      if LINE_LIMITS[refusal.reason] and refusal.wait ~= NONE then curable[#curable + 1] = place end
    end
    if ask.looks_early and all_open then
      for _, place in ipairs(by_wait(everyone, refusals)) do
        local granted = try(ask.items[place], ask, true)
        if granted then return granted end
      end
    end
    for _, place in ipairs(by_wait(curable, refusals)) do
      local queued = Unwell.queue(ask.items[place], refusals[place].reason, refusals[place].wait, ask)
      if queued then return queued end
    end
    return Unwell.refused(refusals, 0)
  end

  function Unwell.explore(ask)
    local it = ask.items[ask.explore]
    if not it or now - it.route.explored_at < ask.explore_interval then return nil end
    local granted = try(it, ask, false)
    if not granted then return nil end
    it.route.explored_at, it.route.dirty = now, true
    granted[5] = 1
    return granted
  end
end)

local Admit = {}

function Admit.plainly(ask)
  local it = ask.items[1]
  return unruffled(it) and take(it, ask, false, false) or {"ruffled"}
end

local function decide(ask)
  local looked = ask.explore > 0 and Unwell.explore(ask)
  if looked then return looked end
  local refusals = {}
  for place = 1, ask.count do
    local it = ask.items[place]
    local granted, reason, wait
    if ask.mode == "spare" then
      granted, reason, wait = Unwell.try_spare(it, ask)
    else
      granted, reason, wait = try(it, ask, false)
    end
    if granted then
      if place > 1 then granted[10] = Unwell.refused(refusals, 0)[3] end
      return granted
    end
    refusals[place] = {reason = reason, wait = wait}
    if LINE_LIMITS[reason] and it.on_limit ~= "next" then
      if it.on_limit == "reject" then return Unwell.refused(refusals, place) end
      local queued = Unwell.queue(it, reason, wait, ask)
      if queued then return queued end
    end
  end
  return Unwell.last_resort(ask, refusals)
end

function Admit.decide(ask)
  local reply = decide(ask)
  if reply[1] == "granted" and ask.placed > 0 then Unwell.leave_lines(ask) end
  return reply
end
