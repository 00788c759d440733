-- meta     string  packed: the time, which never steps back, the number of changes so far, and how far behind it the clock is

-- One batch: every operation in its order, each with the words that engine/store/redis/wire.py wrote.
-- ARGV: the clock (µs, or "" for the server's), the process; then per operation its name, its keys (places in KEYS), its words.

local function provider(keys, place)
  return {
    route = Route.load(keys[place]), account = Account.load(keys[place + 1]), leases = keys[place + 2], line = keys[place + 3],
  }
end

local function candidate(keys, index, packed)
  local it, steps, limits = provider(keys, index * 4 - 2), nil, nil
  it.index = index
  it.unfit, it.affords, it.longest, it.too_big, steps, it.raced, it.interval, it.half_open_max_calls, it.most, it.on_limit, limits =
    unpack(cjson.decode(packed))
  it.dimensions = {}
  for place, limit in ipairs(limits) do
    it.dimensions[place] = {name = limit[1], step = steps[place], room = limit[2], one = limit[3]}
  end
  return it
end

local OPERATIONS = {}

-- Candidates are read when they are asked for: on a healthy day that is the first one alone.
function OPERATIONS.admit(keys, words)
  local ask = {}
  ask.mode, ask.attempt, ask.lease, ask.patience, ask.looks_early, ask.explore, ask.explore_interval, ask.placed, ask.entry, ask.count =
    unpack(cjson.decode(words[1]))
  ask.items = setmetatable({}, {__index = function(items, index)
    local packed = index > 0 and words[index + 1]
    items[index] = packed and candidate(keys, index, packed) or false
    return items[index]
  end})
  return table.concat(ask.mode == "plain" and Admit.plainly(ask) or Admit.decide(ask), " ")
end

function OPERATIONS.settle(keys, words)
  local it, report, circuit, dimensions = provider(keys, 2), nil, nil, nil
  report = {dimensions = {}}
  report.kind, report.attempt, report.generation, report.leased, report.granted, report.outcome, report.reason, report.slow, report.floor,
    report.spread, report.pause, report.looks_again, report.limited, report.auth_block, circuit, dimensions = unpack(cjson.decode(words[1]))
  report.failure_threshold, report.failure_rate, report.minimum_calls, report.slice, report.recovery_timeout, report.recovery_growth,
    report.recovery_cap, report.half_open_max_calls = unpack(circuit)
  for place, moved in ipairs(dimensions) do
    report.dimensions[place] = {
      name = moved[1], moved = moved[2], known = moved[3], room = moved[4], one = moved[5], left = moved[6], times = moved[7],
    }
  end
  return Settle.settle(it.route, it.account, it, report)
end

local Rare = lazily(function(Rare)
  function Rare.renew(keys, words)
    local it = provider(keys, 2)
    local attempt, lease, generation = words[1], tonumber(words[2]), tonumber(words[3])
    local lapses = redis.call("ZSCORE", it.leases, attempt)
    if lapses and tonumber(lapses) > now then
      redis.call("ZADD", it.leases, text(now + lease), attempt)
      redis.call("PEXPIRE", it.leases, text(math.max(HOUR, lease / 1000)))
    end
    if generation == it.route.circuit.generation then
      Circuit.renew(it.route.circuit, now, attempt, lease)
      it.route.dirty = true
    end
    return 0
  end

  -- Whatever was granted to an attempt that never heard of it: its lease and its probe's place. Its tokens are lost: one request's.
  function Rare.cancel(keys, words)
    for place = 2, #keys, 4 do
      local it = provider(keys, place)
      redis.call("ZREM", it.leases, words[1])
      local others = {}
      for _, permit in ipairs(it.route.circuit.permits) do
        if permit[1] ~= words[1] then others[#others + 1] = permit end
      end
      if #others < #it.route.circuit.permits then it.route.circuit.permits, it.route.dirty = others, true end
      Line.wake(it.line, it.account)
    end
    return 0
  end

  -- An attempt that runs on after a time of its process's own: it counts, whatever was lost.
  function Rare.hold(keys, words)
    redis.call("ZADD", keys[4], text(now + tonumber(words[2])), words[1])
    redis.call("PEXPIRE", keys[4], HOUR)
    return 0
  end

  function Rare.leave(keys, words)
    local it = provider(keys, 2)
    Line.leave(it.line, it.account, words[1])
    return 0
  end

  function Rare.override(keys, words)
    local it = provider(keys, 2)
    it.route.override, it.route.dirty = words[1], true
    changed()
    return 0
  end

  -- Somebody vouches for a provider.
  function Rare.reset(keys, words)
    local it = provider(keys, 2)
    it.route.override, it.route.dirty = "", true
    Route.set(it.route, Circuit.reset(it.route.circuit, now), "reset", 0)
    if words[1] == "1" then Account.unblock(it.account) end
    changed()
    return 0
  end

  -- Back from a time on its own: what a process found open or blocked meanwhile, as what is left of it.
  function Rare.carry(keys, words)
    local it = provider(keys, 2)
    local generation, open_for, blocked_for, reason = tonumber(words[1]), tonumber(words[2]), tonumber(words[3]), words[4]
    local state = it.route.circuit
    if open_for > 0 and state.phase == "closed" and state.generation < generation then
      local opened = Circuit.new()
      opened.phase, opened.generation = "open", math.max(state.generation + 1, math.floor(now / 1000))
      opened["until"], opened.raced_at = now + open_for, state.raced_at
      Route.set(it.route, opened, "carried", 0)
    end
    if blocked_for > 0 then Account.block(it.account, now + blocked_for, reason) end
    return 0
  end

  -- What is known of some providers.
  function Rare.view(keys)
    local rows = {}
    for place = 2, #keys, 4 do
      local it = provider(keys, place)
      local c, account = it.route.circuit, it.account
      local tats, buckets, permits = {}, {}, {}
      for index, name in ipairs(NAMES) do tats[index] = text(Account.tat(account, name)) end
      for index, bucket in ipairs(c.buckets) do buckets[index] = text(bucket[1]) .. "," .. table.concat(bucket, ",", 2) end
      for index, permit in ipairs(c.permits) do permits[index] = permit[1] .. "," .. text(permit[2]) end
      rows[#rows + 1] = {
        c.phase, text(c.generation), c.failures_in_a_row, table.concat(buckets, ";"), text(c["until"]), c.reopened, c.successes, table.concat(permits, ";"),
        text(c.raced_at), c.broke_midway, c.for_slowness, it.route.override, it.route.reason, text(it.route.explored_at),
        account.permille, text(account.since), text(account.blocked_until), account.blocked_reason, account.throttles,
        text(account.throttled_at), account.forbidden, redis.call("ZCOUNT", it.leases, "(" .. text(now), "+inf"),
        account.waiting == 1 and redis.call("LLEN", it.line) or 0, tats,
      }
    end
    return rows
  end

  -- This process lives; returns how many do.
  function Rare.beat(keys, words)
    local joined = redis.call("ZADD", keys[2], text(now + tonumber(words[1])), ARGV[2])
    redis.call("ZREMRANGEBYSCORE", keys[2], "-inf", text(now))
    redis.call("PEXPIRE", keys[2], HOUR)
    -- Whoever is alone one day goes by how many they are, so all count again.
    if joined == 1 then changed() end
    return redis.call("ZCARD", keys[2])
  end

  -- Samples of a provider's latency, counted in a window for all; returns all that is in it.
  function Rare.sketch(keys, words)
    for place = 1, #words, 2 do redis.call("HINCRBY", keys[2], words[place], words[place + 1]) end
    redis.call("PEXPIRE", keys[2], 180000)
    return redis.call("HGETALL", keys[2])
  end

  -- Runs every command that some operation needs, so that a right that is missing shows when a connection is made, and not in mid-flight.
  function Rare.probe(keys)
    local places, line, counts = keys[2], keys[3], keys[4]
    redis.call("ZADD", places, 1, "one", 2, "two")
    redis.call("ZSCORE", places, "one")
    redis.call("ZCOUNT", places, "-inf", "+inf")
    redis.call("ZRANGE", places, 0, 0, "WITHSCORES")
    redis.call("ZREM", places, "one")
    redis.call("ZREMRANGEBYSCORE", places, "-inf", "+inf")
    redis.call("ZCARD", places)
    redis.call("RPUSH", line, "one", "two")
    redis.call("LINDEX", line, 0)
    redis.call("LLEN", line)
    redis.call("LPOS", line, "one")
    redis.call("LREM", line, 1, "one")
    redis.call("LPOP", line)
    redis.call("HINCRBY", counts, "one", 1)
    redis.call("HGETALL", counts)
    redis.call("PEXPIRE", counts, 60000)
    tell("wake :0")
    return 0
  end
end)

local function time()
  if ARGV[1] ~= "" then return tonumber(ARGV[1]) end
  local clock = redis.call("TIME")
  return clock[1] * 1000000 + clock[2]
end

-- So many of ARGV, from a place on, and the place behind them.
local function some(from, count)
  local found = {}
  for place = 1, count do found[place] = ARGV[from + place - 1] end
  return found, from + count
end

local function run()
  local replies, meta, at = {}, KEYS[1], 3
  local got = redis.call("GET", meta)
  local known = got and cmsgpack.unpack(got) or {0, 0, 0}
  local skew = known[3]
  now, epoch, channel = time() + skew, known[2], meta .. ":news"
  if now < known[1] then -- the clock was set back: time goes on from where it was, or nothing would lapse until the clock is there again
    now, skew = known[1], skew + known[1] - now
  end
  while at <= #ARGV do
    local name, keys, words = ARGV[at], nil, nil
    keys, at = some(at + 2, tonumber(ARGV[at + 1]))
    for place, key in ipairs(keys) do keys[place] = KEYS[tonumber(key)] end
    words, at = some(at + 1, tonumber(ARGV[at]))
    replies[#replies + 1] = (OPERATIONS[name] or Rare[name])(keys, words)
  end
  for key, route in pairs(routes) do
    if route.dirty then Route.save(key, route) end
  end
  for key, account in pairs(accounts) do
    if account.dirty then Account.save(key, account) end
  end
  redis.call("SET", meta, cmsgpack.pack({now, epoch, skew}), "PX", MONTH)
  for message in pairs(messages) do redis.call("PUBLISH", channel, message) end
  return {text(now), text(epoch), unpack(replies)}
end

return run()
