-- A part of the script whose functions are made when one of them is first needed. Redis compiles a script once, but every call of it makes
-- all its functions anew, and that would cost a healthy day more than all that it does.
local function lazily(define)
  return setmetatable({}, {__index = function(part, name)
    setmetatable(part, nil)
    define(part)
    return part[name]
  end})
end

