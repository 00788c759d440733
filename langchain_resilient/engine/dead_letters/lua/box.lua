-- The dead letters of one namespace, see redis.py for who asks what and why. All of it is one script, so each operation is one atomic step.
-- KEYS[1]: what all keys begin with; it holds the hash tag, so all are in one slot, also those that are named here.
-- ARGV: the clock (µs since the epoch, or "" for the server's); then per operation its name, its keys (places), its words.
--
-- P:stream   stream  id: the letters that are due or claimed, in the order in which they came or came back; the group "replay" reads it, with
--                    one consumer for all processes: who holds what is in P:claims, and a name for each process would outlive it
-- P:later    zset    id -> when it is due (µs): not before that moment
-- P:claims   zset    id -> until when it is held (µs). Leases differ and are renewed, which XAUTOCLAIM's one idle time can't express
-- P:open     zset    id -> created: the letters that wait or are claimed
-- P:parked   zset    id -> created
-- P:keys     hash    idempotency key (scoped to its tenant) -> id
-- P:results  hash    idempotency key -> cjson list of letter, µs when it was written, value;  P:lapses zset  key -> when it is forgotten (µs)
-- P:l:<id>   hash    key, created, body, deliveries, claims (the fencing token: never goes back), not_before, entry (in the stream), parked, hollow

local GROUP, CONSUMER = "replay", "replay"
local P = KEYS[1]
local stream, later, claims, open_, parked = P .. ":stream", P .. ":later", P .. ":claims", P .. ":open", P .. ":parked"
local keys, results, lapses = P .. ":keys", P .. ":results", P .. ":lapses"
local FIELDS = {"body", "deliveries", "claims", "not_before", "parked"}
local at, now = 1, 0

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

local function of(id)
  return P .. ":l:" .. id
end

local function forget()
  for _, key in ipairs(redis.call("ZRANGEBYSCORE", lapses, "-inf", text(now), "LIMIT", 0, 100)) do
    redis.call("HDEL", results, key)
    redis.call("ZREM", lapses, key)
  end
end

local function answered(key)
  local lapse = redis.call("ZSCORE", lapses, key)
  return lapse and tonumber(lapse) > now
end

-- Out of the stream, and of what is held or put off.
local function unqueue(id)
  local entry = redis.call("HGET", of(id), "entry")
  if entry then
    redis.pcall("XACK", stream, GROUP, entry)
    redis.call("XDEL", stream, entry)
    redis.call("HDEL", of(id), "entry")
  end
  redis.call("ZREM", claims, id)
  redis.call("ZREM", later, id)
end

local function enqueue(id, due)
  if due > now then
    redis.call("ZADD", later, text(due), id)
  else
    redis.call("HSET", of(id), "entry", redis.call("XADD", stream, "*", "id", id))
  end
end

local function remove(id)
  local key = redis.call("HGET", of(id), "key")
  if not key then return 0 end
  unqueue(id)
  redis.call("ZREM", open_, id)
  redis.call("ZREM", parked, id)
  redis.call("HDEL", keys, key)
  redis.call("DEL", of(id))
  return 1
end

local function park(id, why)
  unqueue(id)
  redis.call("ZREM", open_, id)
  redis.call("ZADD", parked, redis.call("HGET", of(id), "created"), id)
  redis.call("HSET", of(id), "parked", why)
end

-- Whether a claim is still its claimant's: nobody has claimed it since, given it back or parked it.
local function mine(id, claim)
  return redis.call("HGET", of(id), "claims") == claim and redis.call("ZSCORE", claims, id)
end

local function shown(id)
  local row = redis.call("HMGET", of(id), unpack(FIELDS))
  local held = redis.call("ZSCORE", claims, id)
  local state = row[5] and "parked" or (held and tonumber(held) > now) and "claimed" or "waiting"
  return {state, id, row[1], row[2], held and row[3] or "0", row[4], row[5] or ""}
end

-- What becomes of a letter that is due: it is handed out, or it ended, or is poison.
local function hand_out(id, lease, most_deliveries, taken)
  local row = redis.call("HMGET", of(id), "key", "deliveries")
  if not row[1] then
    unqueue(id)  -- somebody deleted it by hand, or a server that evicts
  elseif answered(row[1]) then
    remove(id)
  elseif tonumber(row[2]) >= most_deliveries then
    park(id, "poison")
  else
    redis.call("HINCRBY", of(id), "deliveries", 1)
    redis.call("HINCRBY", of(id), "claims", 1)
    redis.call("ZADD", claims, text(now + lease), id)
    taken[#taken + 1] = shown(id)
  end
end

local function next_entries(most)
  local got = redis.pcall("XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", most, "STREAMS", stream, ">")
  if got and got.err then
    if not string.find(got.err, "NOGROUP", 1, true) then error(got.err, 0) end
    redis.call("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
    got = redis.call("XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", most, "STREAMS", stream, ">")
  end
  return got and got[1] and got[1][2] or {}
end

local OPERATIONS = {}

function OPERATIONS.put()
  local id, key, created, due, why, hollow, body, deliveries = word(), word(), word(), int(), word(), word(), word(), word()
  if redis.call("HEXISTS", keys, key) == 1 or answered(key) then return 0 end
  if redis.call("EXISTS", of(id)) == 1 then return -1 end
  redis.call("HSET", keys, key, id)  -- the first write, so the one that a full server refuses
  redis.call("HSET", of(id), "key", key, "created", created, "body", body, "deliveries", deliveries, "claims", 0, "not_before", text(due), "hollow", hollow)
  if why ~= "" then
    redis.call("ZADD", parked, created, id)
    redis.call("HSET", of(id), "parked", why)
  else
    redis.call("ZADD", open_, created, id)
    enqueue(id, due)
  end
  return 1
end

-- First what somebody let lapse, whether or not anything new came; then what was put off until now; then what is new.
function OPERATIONS.claim()
  local most, lease, most_deliveries, taken = int(), int(), int(), {}
  forget()
  -- What is handed out leaves this range, so each round looks at others.
  while #taken < most do
    local lapsed = redis.call("ZRANGEBYSCORE", claims, "-inf", text(now), "LIMIT", 0, most - #taken)
    if #lapsed == 0 then break end
    for _, id in ipairs(lapsed) do hand_out(id, lease, most_deliveries, taken) end
  end
  for _, id in ipairs(redis.call("ZRANGEBYSCORE", later, "-inf", text(now))) do
    redis.call("ZREM", later, id)
    enqueue(id, now)
  end
  while #taken < most do
    local entries = next_entries(most - #taken)
    if #entries == 0 then break end
    for _, entry in ipairs(entries) do
      local id = entry[2] and entry[2][2]
      if id and redis.call("HGET", of(id), "entry") == entry[1] then
        hand_out(id, lease, most_deliveries, taken)
      else
        redis.call("XACK", stream, GROUP, entry[1])  -- not of ours, or of a letter that is gone
        redis.call("XDEL", stream, entry[1])
      end
    end
  end
  return taken
end

function OPERATIONS.renew()
  local id, claim, lease = word(), word(), int()
  if not mine(id, claim) then return 0 end
  redis.call("ZADD", claims, text(now + lease), id)
  return 1
end

function OPERATIONS.release()
  local id, claim, due, counted = word(), word(), int(), int()
  if not mine(id, claim) then return 0 end
  unqueue(id)
  if counted == 0 then redis.call("HINCRBY", of(id), "deliveries", -1) end
  redis.call("HSET", of(id), "not_before", text(due))
  enqueue(id, due)
  return 1
end

function OPERATIONS.park()
  local id, claim, why = word(), word(), word()
  if not mine(id, claim) then return 0 end
  park(id, why)
  return 1
end

function OPERATIONS.unpark()
  local id = word()
  local row = redis.call("HMGET", of(id), "parked", "hollow", "created")
  if not row[1] or row[2] == "1" then return 0 end
  redis.call("ZREM", parked, id)
  redis.call("HDEL", of(id), "parked")
  redis.call("HSET", of(id), "deliveries", 0, "not_before", 0)
  redis.call("ZADD", open_, row[3], id)
  enqueue(id, 0)
  return 1
end

-- The letter goes first: what makes room is done even by a server that is full.
function OPERATIONS.finish()
  local id, key, value, keep = word(), word(), word(), int()
  local held = redis.call("HGET", keys, key)
  if held then remove(held) end
  forget()
  if answered(key) then return 0 end
  redis.call("HSET", results, key, cjson.encode({id, text(now), value}))
  redis.call("ZADD", lapses, text(now + keep), key)
  for _, all in ipairs({results, lapses}) do
    if redis.call("PTTL", all) < keep / 1000 then redis.call("PEXPIRE", all, text(math.ceil(keep / 1000) + 60000)) end
  end
  return 1
end

function OPERATIONS.result()
  local key = word()
  if not answered(key) then return false end
  return cjson.decode(redis.call("HGET", results, key))
end

function OPERATIONS.get()
  local id = word()
  if redis.call("EXISTS", of(id)) == 0 then return false end
  return shown(id)
end

-- A page of one of the two zsets: those behind (created, id), of one state or ("") any.
function OPERATIONS.page()
  local which, state, most, created, after = word(), word(), int(), word(), word()
  local all, found, from = which == "parked" and parked or open_, {}, 0
  if created ~= "" then from = redis.call("ZCOUNT", all, "-inf", "(" .. created) end
  while #found < most do
    local ids = redis.call("ZRANGE", all, from, from + 99)
    if #ids == 0 then break end
    for _, id in ipairs(ids) do
      from = from + 1
      local behind = true
      if after ~= "" then
        local its = created ~= "" and tonumber(redis.call("ZSCORE", all, id))
        behind = its and its > tonumber(created) or (not its or its == tonumber(created)) and id > after
      end
      local it = behind and shown(id)
      if it and (state == "" or it[1] == state) then found[#found + 1] = it end
      if #found == most then break end
    end
  end
  return found
end

function OPERATIONS.created()
  return redis.call("HGET", of(word()), "created")
end

function OPERATIONS.purge()
  local state, before, count, ids = word(), word(), int(), {}
  if count > 0 then
    for place = 1, count do ids[place] = word() end
  else
    local limit = before == "" and "+inf" or "(" .. before
    for _, all in ipairs({open_, parked}) do
      for _, id in ipairs(redis.call("ZRANGEBYSCORE", all, "-inf", limit)) do ids[#ids + 1] = id end
    end
  end
  local removed = 0
  for _, id in ipairs(ids) do
    local created = redis.call("HGET", of(id), "created")
    if created and (before == "" or tonumber(created) < tonumber(before)) and (state == "" or shown(id)[1] == state) then
      removed = removed + remove(id)
    end
  end
  return removed
end

function OPERATIONS.counts()
  local oldest = redis.call("ZRANGE", open_, 0, 0, "WITHSCORES")
  return {
    redis.call("ZCARD", open_), redis.call("ZCOUNT", claims, "(" .. text(now), "+inf"), redis.call("ZCARD", parked), oldest[2] or "",
  }
end

local given = word()
if given ~= "" then
  now = tonumber(given)
else
  local clock = redis.call("TIME")
  now = clock[1] * 1000000 + clock[2]
end
local replies = {}
while at <= #ARGV do
  local name = word()
  for _ = 1, int() do int() end
  int()
  replies[#replies + 1] = OPERATIONS[name]()
end
return {text(now), 0, unpack(replies)}
