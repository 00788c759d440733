-- The twin of MemoryLedger (engine/store/tenants.py), and the main part of its script. Read that file for what and why; quota.lua is before it.
-- ARGV: the clock (µs, or "" for the server's), the process; then per operation its name, its keys (places in KEYS), its words.
--
-- user       hash  t, born: when it was last written, and opened; rpm tpm rpd tpd: arrival times, and of each rpm:last rpm:back rpm:held …
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

-- What is known of a user, and the moment of this step; the arrival time of a dimension that was never charged is nil.
local function load(key, names)
  local fields = {"t", "born"}
  for _, name in ipairs(names) do
    for _, part in ipairs({"", ":last", ":back", ":held"}) do fields[#fields + 1] = name .. part end
  end
  local got = redis.call("HMGET", key, unpack(fields))
  local book = {known = got[1], written = math.max(now, tonumber(got[1] or now))}
  book.born = tonumber(got[2] or book.written)
  for place, name in ipairs(names) do
    local from = 4 * place - 2
    book[place] = {
      name = name, tat = tonumber(got[from + 1]), last = tonumber(got[from + 2] or 0), back = tonumber(got[from + 3] or 0),
      held = tonumber(got[from + 4] or 0),
    }
  end
  return book
end

local function save(key, book)
  local words, longest = {"t", text(book.written), "born", text(book.born)}, book.written
  for _, it in ipairs(book) do
    if it.tat then
      for part, value in pairs({[""] = it.tat, [":last"] = it.last, [":back"] = it.back, [":held"] = it.held}) do
        words[#words + 1], words[#words + 2] = it.name .. part, text(value)
      end
      longest = math.max(longest, it.tat)
    end
  end
  redis.call("HSET", key, unpack(words))
  redis.call("PEXPIRE", key, text(math.ceil((longest - now) / 1000) + MINUTE_MS))
end

-- Moves an arrival time; back, by no more than lies above the mark. `was`: the booking's after and back.
local function give(book, it, by, was, born)
  if by < 0 then
    local owed = was.after + was.back - it.last - it.held
    by = book.born == born and -math.min(-by, math.max(0, owed)) or 0
  end
  local tat = Quota.reconcile(it.tat, by, book.written)
  it.tat, it.back = tat, it.back + math.max(0, it.tat - tat)
end

local OPERATIONS = {}

function OPERATIONS.take(keys)
  local patience, names, dimensions = int(), {}, {}
  for place = 1, int() do
    names[place] = word()
    dimensions[place] = {step = int(), room = int(), one = 0}
  end
  local book = load(keys[1], names)
  local moment, wait, tightest, last = book.written, 0, -1, 0
  for place, dimension in ipairs(dimensions) do
    local pause = Quota.take(dimension, book[place].tat or 0, moment, 1000)
    if pause > wait then wait, tightest = pause, place - 1 end
    last = math.max(last, book[place].last)
  end
  if wait < last - moment then wait, tightest = last - moment, math.max(tightest, 0) end
  local granted = wait <= patience
  local reply = {granted and 1 or 0, wait, tightest, moment, book.born}
  for place, dimension in ipairs(dimensions) do
    local it = book[place]
    local before, behind = it.tat or 0, it.last
    if granted then
      it.tat = math.max(before, moment + wait) + dimension.step
      it.last, it.held = moment + wait, it.back
    end
    for _, each in ipairs({before, it.tat or 0, behind, it.back}) do reply[#reply + 1] = each end
  end
  if granted then save(keys[1], book) end
  return reply
end

function OPERATIONS.hand_back(keys)
  local born, names, was = int(), {}, {}
  for place = 1, int() do
    names[place], was[place] = word(), {before = int(), after = int(), step = int(), last = int(), back = int()}
  end
  local book = load(keys[1], names)
  if not book.known then return 0 end
  local undone = book.born == born
  for place, it in ipairs(book) do
    undone = undone and it.tat and it.tat + it.back == was[place].after + was[place].back
  end
  for place, it in ipairs(book) do
    if undone then
      it.tat, it.last = was[place].before + was[place].back - it.back, was[place].last
    elseif it.tat then
      give(book, it, -was[place].step, was[place], born)
    end
  end
  save(keys[1], book)
  return 1
end

function OPERATIONS.settle(keys)
  local born, names, was = int(), {}, {}
  for place = 1, int() do names[place], was[place] = word(), {by = int(), after = int(), back = int()} end
  local book = load(keys[1], names)
  if not book.known then return 0 end
  for place, it in ipairs(book) do
    if it.tat then give(book, it, was[place].by, was[place], born) end
  end
  save(keys[1], book)
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
  save(keys[2], load(keys[2], {"rpm"}))
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
