-- The process that asks is alive: its running requests keep their places.
-- KEYS: running requests of a subject, once for each request. ARGV: now ('' for this server's), lease in ms, then the requests.
local now, lease = now_ms(ARGV[1]), tonumber(ARGV[2])
for index = 1, #KEYS do
  redis.call('ZADD', KEYS[index], now + lease, ARGV[index + 2])
  redis.call('PEXPIRE', KEYS[index], 2 * lease)
end
return {}
