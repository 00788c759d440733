-- The twin of note_settled (engine/store/state.py): what the shared part of a report changes. What only one process needs of it, latency and
-- the retry budget, stays in that process.

local THROTTLE_CAP = 60000000
local SECOND = 1000000
local FORBIDDEN_IN_A_ROW = 3

local Settle = {}

local function throttle(account, report)
  if report.granted > account.throttled_at then
    account.throttles, account.throttled_at = account.throttles + 1, now
    if report.limited then account.permille, account.since = Quota.cut(account.permille, account.since, now) end
  end
  if report.pause >= 0 then
    Account.block(account, now + report.pause, "blocked")
  elseif account.throttled_at == now then
    Account.block(account, now + math.min(THROTTLE_CAP, SECOND * 2 ^ math.min(account.throttles - 1, 6)), "blocked")
  end
end

local function note_blocks(account, report)
  local kind = report.kind
  if kind == "opened" then return end
  if kind == "ok" then
    if account.forbidden ~= 0 then account.forbidden, account.dirty = 0, true end
    if report.granted > account.throttled_at and account.throttles ~= 0 then account.throttles, account.dirty = 0, true end
    return
  end
  account.dirty = true
  if kind == "rate_limited" then return throttle(account, report) end
  if kind == "quota_exhausted" then return Account.block(account, now + report.pause, "quota_exhausted") end
  if kind == "permission" then account.forbidden = account.forbidden + 1 end
  if kind == "auth" or account.forbidden >= FORBIDDEN_IN_A_ROW then
    account.forbidden = 0
    Account.block(account, now + report.auth_block, "auth")
  end
end

local function reconcile(account, dimensions)
  if #dimensions == 0 then return end
  local scale = Account.scale(account)
  for _, it in ipairs(dimensions) do
    local before = Account.tat(account, it.name)
    local tat = Quota.reconcile(before, it.moved, now)
    if it.known then tat = Quota.tighten(tat, now, scale, it.room, it.one, it.left, it.times) end
    if tat ~= before then account.tats[it.name], account.dirty = tat, true end
  end
end

function Settle.settle(route, account, keys, report)
  if report.leased then redis.call("ZREM", keys.leases, report.attempt) end
  reconcile(account, report.dimensions)
  note_blocks(account, report)
  local first_token = report.kind == "opened"
  if report.outcome ~= "" and route.override ~= "disabled" and not (first_token and route.circuit.broke_midway == 1) then
    local successes = route.circuit.successes
    Route.set(route, Circuit.report(
      route.circuit, report, now, report.outcome, report.generation, report.attempt, report.slow, report.floor, report.spread
    ), report.reason, successes)
  end
  if report.looks_again then route.explored_at, route.dirty = -EXPLORE_INTERVAL, true end
  if account.waiting == 1 and not first_token then Line.wake(keys.line, account) end
  return 0
end
