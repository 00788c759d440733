-- The twin of engine/quota.py: same names, same arithmetic. Read that file for what and why.
-- What depends on settings alone (increments, the bucket's room) comes computed, so no product here reaches 2^53.

local MINUTE = 60000000
local FULL = 1000
local FLOOR = 200

local Quota = {}

local function ceil_div(above, below)
  return -math.floor(-above / below)
end

function Quota.stretched(step, scale)
  if scale == FULL then return step end
  return ceil_div(step * FULL, scale)
end

-- dimension: name, step (the cost's increment), room (of the lane's share), one (the increment of one unit); all at the full limit.
-- Returns the wait, the state once charged, and the charge.
function Quota.take(dimension, tat, now, scale)
  local ahead = math.max(tat - now, 0)
  local step = Quota.stretched(dimension.step, scale)
  local room = math.max(dimension.room, Quota.stretched(dimension.one, scale))
  if ahead + step <= room then return 0, now + ahead + step, step end
  return step > room and ahead or ahead + step - room, now + ahead + step, step
end

-- moved: how far the real cost moves the state: forward beyond the estimate, or (negative) the refund.
function Quota.reconcile(tat, moved, now)
  if moved > 0 then return math.max(tat, now) + moved end
  if moved == 0 or tat <= now then return tat end
  return math.max(now, tat + moved)
end

-- The provider said how much remains: `left` increments of one unit, or one increment for all of it.
function Quota.tighten(tat, now, scale, room, one, left, times)
  local capacity = math.max(room, Quota.stretched(one, scale))
  return math.max(tat, now + capacity - times * Quota.stretched(left, scale))
end

function Quota.scale_at(permille, since, now)
  if permille == FULL then return FULL end
  return math.min(FULL, permille + math.floor((now - since) * 50 / MINUTE))
end

-- Returns the new scale and when it was cut.
function Quota.cut(permille, since, now)
  if now - since < MINUTE then return permille, since end
  return math.max(FLOOR, math.floor(Quota.scale_at(permille, since, now) * 8 / 10)), now
end
