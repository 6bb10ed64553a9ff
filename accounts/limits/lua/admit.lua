-- Counts a request at all its subjects, or at none.
-- KEYS: of each subject its window and its running requests. ARGV: now ('' for this server's), lease in ms, request id, tokens,
-- then of each subject its limits: requests, tokens, concurrent.
-- Answers {0, second} or {which limit, 'requests' | 'tokens' | 'concurrent', ms to wait}, and then of each subject what it has
-- used: requests, tokens, ms until none of it counts.
local now = now_ms(ARGV[1])
local lease, request_id, asked = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local second = math.floor(now / 1000)
local answer = {0, second}
local worst = 0
local CONCURRENT_RETRY = 1000 -- nobody knows when the next place comes free

local function refuse(index, what, wait)
  if wait > worst then
    worst = wait
    answer[1], answer[2], answer[3] = index, what, wait
  end
end

-- Milliseconds until no more than `most` of `used` count.
local function until_most(key, prefix, used, most, first, last)
  for old = first, last do
    used = used - tonumber(redis.call('HGET', key, prefix .. old) or 0)
    if used <= most then
      return forgotten_in(old, now)
    end
  end
  return 1
end

local function running(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZCOUNT', key, '(' .. now + lease, '+inf') > 0 then
    -- The clock was turned back: nothing may be leased for longer than a lease.
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now + lease, '+inf')) do
      redis.call('ZADD', key, now + lease, member)
    end
  end
  return redis.call('ZCARD', key)
end

local subjects = {}
for index = 1, #KEYS / 2 do
  local key, places = KEYS[2 * index - 1], KEYS[2 * index]
  local most_requests, most_tokens, most_running =
    tonumber(ARGV[3 * index + 2]), tonumber(ARGV[3 * index + 3]), tonumber(ARGV[3 * index + 4])
  local requests, tokens, first, last = window(key, second)
  local estimate = math.min(asked, most_tokens)
  if most_requests > 0 and requests >= most_requests then
    refuse(index, 'requests', until_most(key, 'r', requests, most_requests - 1, first, last))
  end
  if most_tokens > 0 and tokens + estimate > most_tokens then
    refuse(index, 'tokens', until_most(key, 't', tokens, most_tokens - estimate, first, last))
  end
  local places_taken = running(places)
  if most_running > 0 and places_taken >= most_running then
    refuse(index, 'concurrent', CONCURRENT_RETRY)
  end
  subjects[index] = {key, places, estimate, requests, tokens, last}
end

for _, subject in ipairs(subjects) do
  local key, places, estimate, requests, tokens, last = unpack(subject, 1, 6)
  if worst == 0 then
    add(key, second, 1, estimate)
    redis.call('ZADD', places, now + lease, request_id)
    redis.call('PEXPIRE', places, 2 * lease)
    requests, tokens, last = requests + 1, tokens + estimate, second
  end
  answer[#answer + 1] = requests
  answer[#answer + 1] = tokens
  answer[#answer + 1] = last and forgotten_in(last, now) or 0
end
return answer
