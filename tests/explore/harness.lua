-- Runs many steps of the explorer in one round trip. It holds the texts of the scripts unchanged.
-- Each is in a function whose parameters are the KEYS and ARGV of a step.
--
-- KEYS     as of admit.lua
-- ARGV[1]  the steps, as lengths and bytes: the commands that make the state, the script's name, its
--          arguments
-- Reply    a step: what the script answered, and what every key holds then

local function admit(KEYS, ARGV)
--ADMIT--
end

local function settle(KEYS, ARGV)
--SETTLE--
end

local text, at = ARGV[1], 1

local function number()
  local n
  n, at = struct.unpack('<I4', text, at)
  return n
end

local function words()
  local list = {}
  for i = 1, number() do
    list[i], at = struct.unpack('<I4c0', text, at)
  end
  return list
end

local replies = {}
while at <= #text do
  redis.call('DEL', unpack(KEYS))
  for _ = 1, number() do redis.call(unpack(words())) end
  local script, arguments = words()[1], words()
  local is_done, reply = pcall(script == 'admit' and admit or settle, KEYS, arguments)
  if not is_done then
    reply = { 'error', type(reply) == 'table' and reply.err or tostring(reply) }
  end
  replies[#replies + 1] = {
    reply,
    redis.call('GET', KEYS[1]),
    redis.call('GET', KEYS[2]),
    redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'),
    redis.call('ZRANGE', KEYS[4], 0, -1),
    redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES'),
    redis.call('HGETALL', KEYS[6]),
    redis.call('HGETALL', KEYS[7]),
    redis.call('PTTL', KEYS[1]),
    redis.call('PTTL', KEYS[3]),
    redis.call('PTTL', KEYS[7]),
  }
end
redis.call('DEL', unpack(KEYS))
return replies
