-- The twin of MemoryLedger (engine/store/tenants.py), and the main part of its script. Read that file for what and why; quota.lua is before it.
-- ARGV: the clock (µs, or "" for the server's), the process; then per operation its name, its keys (places in KEYS), its words.
--
-- user       hash  t: when it was last written; rpm tpm rpd tpd: arrival times
-- processes  zset  process -> when it counts as gone
--
-- A user is forgotten a minute after all buckets are full.

local MINUTE_MS = 60000
local at = 1
local now, processes = 0, 0

local function word()
  at = at + 1
  return ARGV[at - 1]
end

local function int()
  return tonumber(word())
end

local function text(number)
  return string.format("%.0f", number)
end

-- The moment of this step, and the arrival times; a dimension that was never charged is nil.
local function load(key, names)
  local got = redis.call("HMGET", key, "t", unpack(names))
  local tats = {}
  for place = 1, #names do tats[place] = tonumber(got[place + 1]) end
  return math.max(now, tonumber(got[1] or now)), tats, got[1]
end

local function save(key, names, tats, moment)
  local words, longest = {"t", text(moment)}, moment
  for place, name in ipairs(names) do
    if tats[place] then
      words[#words + 1], words[#words + 2] = name, text(tats[place])
      longest = math.max(longest, tats[place])
    end
  end
  redis.call("HSET", key, unpack(words))
  redis.call("PEXPIRE", key, text(math.ceil((longest - now) / 1000) + MINUTE_MS))
end

local OPERATIONS = {}

function OPERATIONS.take(keys)
  local patience, names, dimensions = int(), {}, {}
  for place = 1, int() do
    names[place] = word()
    dimensions[place] = {step = int(), room = int(), one = 0}
  end
  local moment, tats = load(keys[1], names)
  local wait, tightest = 0, -1
  for place, dimension in ipairs(dimensions) do
    local pause = Quota.take(dimension, tats[place] or 0, moment, 1000)
    if pause > wait then wait, tightest = pause, place - 1 end
  end
  local granted = wait <= patience
  local reply = {granted and 1 or 0, wait, tightest, moment}
  for place, dimension in ipairs(dimensions) do
    local before = tats[place] or 0
    if granted then tats[place] = math.max(before, moment + wait) + dimension.step end
    reply[#reply + 1], reply[#reply + 2] = before, tats[place] or 0
  end
  if granted then save(keys[1], names, tats, moment) end
  return reply
end

function OPERATIONS.hand_back(keys)
  local names, befores, afters, steps = {}, {}, {}, {}
  for place = 1, int() do names[place], befores[place], afters[place], steps[place] = word(), int(), int(), int() end
  local moment, tats, known = load(keys[1], names)
  if not known then return 0 end
  for place, tat in pairs(tats) do
    tats[place] = tat == afters[place] and befores[place] or Quota.reconcile(tat, -steps[place], moment)
  end
  save(keys[1], names, tats, moment)
  return 1
end

function OPERATIONS.settle(keys)
  local names, moves = {}, {}
  for place = 1, int() do names[place], moves[place] = word(), int() end
  local moment, tats, known = load(keys[1], names)
  if not known then return 0 end
  for place, tat in pairs(tats) do tats[place] = Quota.reconcile(tat, moves[place], moment) end
  save(keys[1], names, tats, moment)
  return 1
end

-- This process is alive for so many µs more; 0: it ends.
function OPERATIONS.beat(keys)
  redis.call("ZADD", keys[1], text(now + int()), ARGV[2])
  redis.call("ZREMRANGEBYSCORE", keys[1], "-inf", text(now))
  redis.call("PEXPIRE", keys[1], 60 * MINUTE_MS)
  processes = redis.call("ZCARD", keys[1])
  return processes
end

-- Does what a decision does, to find out whether it may.
function OPERATIONS.probe(keys)
  load(keys[2], {"rpm"})
  save(keys[2], {"rpm"}, {}, now)
  return OPERATIONS.beat(keys)
end

local function run()
  local given = word()
  if given ~= "" then
    now = tonumber(given)
  else
    local clock = redis.call("TIME")
    now = clock[1] * 1000000 + clock[2]
  end
  at = 3
  local replies = {}
  while at <= #ARGV do
    local name, keys = word(), {}
    for place = 1, int() do keys[place] = KEYS[int()] end
    int()
    replies[#replies + 1] = OPERATIONS[name](keys)
  end
  return {text(now), processes, unpack(replies)}
end

return run()
