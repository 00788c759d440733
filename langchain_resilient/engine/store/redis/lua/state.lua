-- What Redis keeps: the twin of Route and Account (engine/store/state.py, account.py).
--
-- route    string  packed (MessagePack): the circuit, its override, why it last changed, when somebody slow was last looked at
-- account  string  packed: arrival times by dimension, the limits' scale, the block, 429s and 403s in a row, whether anybody waits
-- leases   zset    attempt -> when its place lapses
-- line     list    "attempt|when it lapses", in the order in which they came
--
-- What an operation touches is read once and written once a batch, however many operations are in it.

local HOUR = 3600000
local MONTH = 30 * 24 * HOUR
local EXPLORE_INTERVAL = 30000000
local NAMES = {"rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "usd_per_day"}

local now, epoch, channel
local routes, accounts, messages = {}, {}, {}

local function text(number)
  return string.format("%.0f", number)
end

local function tell(message)
  messages[message] = true
end

-- Every process reads the state again: a circuit, a block or an override changed.
local function changed()
  epoch = math.max(epoch + 1, math.floor(now / 1000)) -- as generations: a failover cannot repeat one
  tell("changed")
end

local Route = {}

function Route.load(key)
  local route = routes[key]
  if not route then
    local got = redis.call("GET", key)
    route = got and cmsgpack.unpack(got) or {circuit = Circuit.new(), override = "", reason = "", explored_at = -EXPLORE_INTERVAL}
    routes[key] = route
  end
  return route
end

function Route.save(key, route)
  local left = math.max(0, route.circuit["until"] - now) / 1000
  route.dirty = nil
  redis.call("SET", key, cmsgpack.pack(route), "PX", text(route.override ~= "" and MONTH or left + HOUR))
end

-- A circuit's next state; everybody is told of another phase, and of a probe that answered.
function Route.set(route, circuit, reason, successes)
  route.dirty = true
  if circuit.phase ~= route.circuit.phase then route.reason = reason end
  if circuit.phase ~= route.circuit.phase or circuit.successes ~= successes then changed() end
  route.circuit = circuit
end

local Account = {}

function Account.load(key)
  local account = accounts[key]
  if not account then
    local got = redis.call("GET", key)
    account = got and cmsgpack.unpack(got) or {
      tats = {}, permille = 1000, since = -60000000, blocked_until = 0, blocked_reason = "blocked", throttles = 0, throttled_at = -1,
      forbidden = 0, waiting = 0,
    }
    accounts[key] = account
  end
  return account
end

function Account.save(key, account)
  local longest = account.blocked_until
  for _, tat in pairs(account.tats) do longest = math.max(longest, tat) end
  account.dirty = nil
  redis.call("SET", key, cmsgpack.pack(account), "PX", text(math.max(0, longest - now) / 1000 + HOUR))
end

function Account.tat(account, name)
  return account.tats[name] or 0
end

function Account.block(account, til, reason)
  account.dirty = true
  if til > account.blocked_until then
    account.blocked_until, account.blocked_reason = til, reason
    changed()
  end
end

function Account.unblock(account)
  account.dirty = true
  account.blocked_until, account.throttles, account.forbidden, account.blocked_reason = 0, 0, 0, "blocked"
end

function Account.scale(account)
  return Quota.scale_at(account.permille, account.since, now)
end

local function standing(entry)
  local bar = string.find(entry, "|", 1, true)
  return string.sub(entry, 1, bar - 1), tonumber(string.sub(entry, bar + 1))
end

local Line = lazily(function(Line)
  -- Whose turn it is, and when that place lapses. Places whose time is over are dropped, and whoever is first then is woken,
  -- unless that is who asks.
  function Line.front(key, account, asker)
    if account.waiting == 0 then return nil end
    local entry, dropped = redis.call("LINDEX", key, 0), false
    while entry do
      local attempt, lapses = standing(entry)
      if lapses >= now then
        if dropped and attempt ~= asker then tell("wake " .. attempt) end
        return attempt, lapses
      end
      redis.call("LPOP", key)
      dropped = true
      entry = redis.call("LINDEX", key, 0)
    end
    account.waiting, account.dirty = 0, true
    return nil
  end

  function Line.holds(key, entry)
    return redis.call("LPOS", key, entry) and true or false
  end

  function Line.append(key, account, entry)
    redis.call("RPUSH", key, entry)
    redis.call("PEXPIRE", key, HOUR)
    account.waiting, account.dirty = 1, true
  end

  -- Tell the first one to ask again.
  function Line.wake(key, account)
    local front = Line.front(key, account)
    if front then tell("wake " .. front) end
  end

  function Line.leave(key, account, entry)
    redis.call("LREM", key, 1, entry)
    Line.wake(key, account)
  end

  -- µs that a place waits before it asks again, unless woken; turn: µs until the first one's turn comes.
  function Line.pause(key, attempt, lapses, turn)
    local first = redis.call("LINDEX", key, 0)
    local front, front_lapses = standing(first)
    if front == attempt then return math.min(lapses - now, turn) end
    local second = redis.call("LINDEX", key, 1)
    if second and standing(second) == attempt then return math.min(lapses - now, front_lapses - now + 1) end
    return lapses - now
  end
end)
