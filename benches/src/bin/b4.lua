-- KEYS 1, 2: when the next call of each limit is due, in us. 3: a record.
-- ARGV 1: us from one call to the next. 2: how many us ahead of that calls may come.
-- Reply: 1 or 0, the record.
local time = redis.call('TIME')
local now = time[1] * 1e6 + time[2]
local interval, ahead = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = {}
for limit = 1, 2 do
  due[limit] = math.max(now, tonumber(redis.call('GET', KEYS[limit]) or 0))
  if due[limit] - now > ahead then return { 0, false } end
end
for limit = 1, 2 do
  redis.call('SET', KEYS[limit], string.format('%.0f', due[limit] + interval), 'EX', 60)
end
return { 1, redis.call('GET', KEYS[3]) }
