-- A request is over: its places come free, and the real number of tokens replaces the estimate. A second time changes nothing.
-- KEYS: of each subject its window and its running requests. ARGV: now ('' for this server's), request id, then of each subject
-- the second in which it was admitted, the tokens counted then, the tokens to count.
local second = math.floor(now_ms(ARGV[1]) / 1000)
for index = 1, #KEYS / 2 do
  local key, places = KEYS[2 * index - 1], KEYS[2 * index]
  local admitted, estimate, real = ARGV[3 * index], tonumber(ARGV[3 * index + 1]), tonumber(ARGV[3 * index + 2])
  if redis.call('ZREM', places, ARGV[2]) == 1 then
    if real > estimate then
      window(key, second)
      add(key, second, 0, real - estimate)
    elseif real < estimate then
      -- Of a second that is forgotten, or was before Redis was emptied, nothing is left to give back.
      local back = math.min(estimate - real, tonumber(redis.call('HGET', key, 't' .. admitted) or 0))
      if back > 0 then
        redis.call('HINCRBY', key, 't' .. admitted, -back)
        redis.call('HINCRBY', key, 'tokens', -back)
      end
    end
  end
end
return {}
