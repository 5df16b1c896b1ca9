return 'hello'
--> "hello"
--[====[ next ]====]
return {1, 2, 3, 'ciao', {1, 2}, 100.5, -3.9, true, false, nil, 'unseen'}
--> [1, 2, 3, "ciao", [1, 2], 100, -3, 1, nil]
--[====[ next ]====]
return {KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], #KEYS, #ARGV}
--> ["k1", "k2"]
--[====[ next ]====]
return {KEYS[1], KEYS[2], ARGV[1], ARGV[2], #KEYS, #ARGV}
--> ["k1", "k2", "a1", "a2", 2, 2]
--[====[ next ]====]
return {1e300, -1e300, 0/0, 2^53, 2^63, -2^63, 1e15}
--> [-9223372036854775808, -9223372036854775808, -9223372036854775808, 9007199254740992, -9223372036854775808, -9223372036854775808, 1000000000000000]
--[====[ next ]====]
return {ok = 'fine'}
--> +fine
--[====[ next ]====]
return {ok = 'two\r\nlines'}
--> +two  lines
--[====[ next ]====]
return {err = 'ERR this is an error'}
--> -ERR this is an error
--[====[ next ]====]
return {err = 'two\r\nlines'}
--> -two  lines
--[====[ next ]====]
return {err = 5}
--> []
--[====[ next ]====]
return {double = 3.141}
--> ,3.141
--[====[ next ]====]
return {double = 5}
--> ,5
--[====[ next ]====]
return {double = 1e100}
--> ,1e+100
--[====[ next ]====]
return {map = {field = 'value'}}
--> %["field": "value"]
--[====[ next ]====]
return {set = {a = true}}
--> ~["a"]
--[====[ next ]====]
return {map = {a = {set = {b = true}}}}
--> %["a": ~["b"]]
--[====[ next ]====]
return {verbatim_string = {string = 'text', format = 'txt'}}
--> ="text"
--[====[ next ]====]
return {verbatim_string = {string = 'text'}}
--> []
--[====[ next ]====]
return _G
--> []
--[====[ next ]====]
local a = {} setmetatable(a, {__index = function() foo() end}) return a
--> []
--[====[ next ]====]
return print
--> -ERR user_script:1: Script attempted to access nonexistent global variable 'print' script: e04c03cc8f0141c25e6c520a1b28f6162ace87d4, on @user_script:1.
--[====[ next ]====]
return {loadfile == nil}
--> -ERR user_script:1: Script attempted to access nonexistent global variable 'loadfile' script: c36876f72394f47ca2f207ff5d987ce0ee8c4c8d, on @user_script:1.
--[====[ next ]====]
return {pcall(function() return loadfile end)}
--> [nil, "user_script:1: Script attempted to access nonexistent global variable 'loadfile'"]
--[====[ next ]====]
return function() end
--> nil
--[====[ next ]====]
local foo = redis.pcall('incr', KEYS[1]) return {type(foo), foo}
--> ["number", 1]
--[====[ next ]====]
redis.call('set', 'k', 'v') return redis.pcall('incr', 'k')
--> -ERR value is not an integer or out of range
--[====[ next ]====]
redis.call('set', 'k', 'v') return redis.call('incr', 'k')
--> -ERR value is not an integer or out of range script: 14baafeebebd4736e4a555e496da4a7f7eaa863c, on @user_script:1.
--[====[ next ]====]
redis.call('set', 'k', 'v') local e = redis.pcall('incr', 'k') return {type(e), e.err, tostring(e.ignore_error_stats_update), e.ok == nil}
--> ["table", "ERR value is not an integer or out of range", "true", 1]
--[====[ next ]====]
redis.call('rpush', 'l', 'x') return {pcall(redis.call, 'get', 'l')}
--> [nil, "WRONGTYPE Operation against a key holding the wrong kind of value"]
--[====[ next ]====]
redis.call('rpush', 'l', 'x') return {xpcall(function() redis.call('get', 'l') end, function(e) return e.err end)}
--> [nil, "WRONGTYPE Operation against a key holding the wrong kind of value"]
--[====[ next ]====]
redis.call('rpush', 'l', 'a', 2, 3.5) return redis.call('lrange', 'l', 0, -1)
--> ["a", "2", "3.5"]
--[====[ next ]====]
return {redis.call('set', 'k', 'v').ok, redis.call('get', 'nothing'), redis.call('get', 'k')}
--> ["OK", nil, "v"]
--[====[ next ]====]
return {redis.call('echo', 0.1), redis.call('echo', 1e15), redis.call('echo', 1e17), redis.call('echo', 12345678901234567890), redis.call('echo', -5), redis.call('echo', 1/3), redis.call('echo', 3.0)}
--> ["0.10000000000000001", "1000000000000000", "1e+17", "1.2345678901234567e+19", "-5", "0.33333333333333331", "3"]
--[====[ next ]====]
return {redis.call('echo', 2^53), redis.call('echo', 2^53 + 2), redis.call('echo', 1e16), redis.call('echo', 123456789012345678), redis.call('echo', 1/0), redis.call('echo', -1/0)}
--> ["9007199254740992", "9007199254740994", "10000000000000000", "1.2345678901234568e+17", "inf", "-inf"]
--[====[ next ]====]
return {tostring(0.1), tostring(1e15), tostring(1e100), tostring(-0.0), tostring(1/3), 2^53 .. '', 10 .. '', tostring(1e14), tostring(123456789012345)}
--> ["0.1", "1e+15", "1e+100", "-0", "0.33333333333333", "9.007199254741e+15", "10", "1e+14", "1.2345678901234e+14"]
--[====[ next ]====]
redis.call('nosuchcommand')
--> -ERR Unknown Redis command called from script script: 010d0bb84b049fd37687840a923151054b563b1c, on @user_script:1.
--[====[ next ]====]
return redis.pcall('nosuchcommand')
--> -ERR Unknown Redis command called from script
--[====[ next ]====]
redis.call('get', 'a', 'b', 'c')
--> -ERR Wrong number of args calling Redis command from script script: 3181fea473128546d7af859db92db4ea1f06d5d7, on @user_script:1.
--[====[ next ]====]
redis.call('set', 'a', 'b', 'c')
--> -ERR syntax error script: 7707d91cefbb491c065986b5ad1f54c2c5cbcabf, on @user_script:1.
--[====[ next ]====]
redis.call()
--> -ERR Please specify at least one argument for this redis lib call script: 3e45d59c0850150f7e7f87b277b4b8656e254dbb, on @user_script:1.
--[====[ next ]====]
return redis.pcall()
--> -ERR Please specify at least one argument for this redis lib call
--[====[ next ]====]
redis.call({})
--> -ERR Lua redis lib command arguments must be strings or integers script: 3b430caef8f5d3ab4c19b1717e4e74937af5f836, on @user_script:1.
--[====[ next ]====]
redis.call('get', nil)
--> -ERR Lua redis lib command arguments must be strings or integers script: 987f991eae040838db1be01aded95e2c69411771, on @user_script:1.
--[====[ next ]====]
return redis.pcall('get', true)
--> -ERR Lua redis lib command arguments must be strings or integers
--[====[ next ]====]
return {pcall(redis.call)}
--> [nil, "ERR Please specify at least one argument for this redis lib call"]
--[====[ next ]====]
redis.setresp(3) return redis.call('debug', 'protocol', 'map')
--> %[1: #true, 2: #false, 0: #false]
--[====[ next ]====]
redis.setresp(2) return redis.call('debug', 'protocol', 'map')
--> [0, 0, 1, 1, 2, 0]
--[====[ next ]====]
redis.setresp(3) return redis.call('debug', 'protocol', 'set')
--> ~[1, 2, 0]
--[====[ next ]====]
return redis.call('debug', 'protocol', 'set')
--> [0, 1, 2]
--[====[ next ]====]
redis.setresp(3) return redis.call('debug', 'protocol', 'double')
--> ,3.141
--[====[ next ]====]
return redis.call('debug', 'protocol', 'double')
--> "3.141"
--[====[ next ]====]
redis.setresp(3) return redis.call('debug', 'protocol', 'null')
--> nil
--[====[ next ]====]
return redis.call('debug', 'protocol', 'null')
--> nil
--[====[ next ]====]
redis.setresp(3) return {redis.call('debug', 'protocol', 'true'), redis.call('debug', 'protocol', 'false')}
--> [#true, #false]
--[====[ next ]====]
return {redis.call('debug', 'protocol', 'true'), redis.call('debug', 'protocol', 'false')}
--> [1, 0]
--[====[ next ]====]
redis.setresp(3) return redis.call('debug', 'protocol', 'verbatim')
--> ="This is a verbatim\x0astring"
--[====[ next ]====]
return redis.call('debug', 'protocol', 'verbatim')
--> "This is a verbatim\x0astring"
--[====[ next ]====]
redis.setresp(3) local r = redis.call('debug', 'protocol', 'verbatim').verbatim_string return {r.string, r.format}
--> ["This is a verbatim\x0astring", "txt"]
--[====[ next ]====]
redis.setresp(3) local r = redis.call('debug', 'protocol', 'map') return {type(r.map), tostring(r.map[1]), tostring(r.map[0])}
--> ["table", "true", "false"]
--[====[ next ]====]
redis.setresp(3) return true
--> #true
--[====[ next ]====]
redis.setresp(3) return false
--> #false
--[====[ next ]====]
redis.setresp(4)
--> -ERR RESP version must be 2 or 3. script: 91a5bdfb81f2a99b3e7ff6bb14d6812ca7b4fe4c, on @user_script:1.
--[====[ next ]====]
redis.setresp()
--> -ERR redis.setresp() requires one argument. script: 88609b73fac892ad544eb66c3384bba2f6870e61, on @user_script:1.
--[====[ next ]====]
redis.setresp('3') return true
--> #true
--[====[ next ]====]
return redis.sha1hex('')
--> "da39a3ee5e6b4b0d3255bfef95601890afd80709"
--[====[ next ]====]
return redis.sha1hex('Pizza & Mandolino')
--> "74822d82031af7493c20eefa13bd07ec4fada82f"
--[====[ next ]====]
return redis.sha1hex(12)
--> "7b52009b64fd0a2a49e6d8a939753077792b0554"
--[====[ next ]====]
redis.sha1hex()
--> -ERR wrong number of arguments script: 95b6b2d8fca2aea9201b92fdf6db2be1e3b07d8e, on @user_script:1.
--[====[ next ]====]
return redis.error_reply('MY code')
--> -MY code
--[====[ next ]====]
return redis.error_reply('-MY code')
--> -MY code
--[====[ next ]====]
return redis.error_reply('single')
--> -ERR single
--[====[ next ]====]
return redis.error_reply('a\r\nb c\r\n')
--> -a  b c
--[====[ next ]====]
return redis.error_reply()
--> -ERR wrong number or type of arguments
--[====[ next ]====]
return redis.error_reply({})
--> -ERR wrong number or type of arguments
--[====[ next ]====]
return redis.error_reply(5)
--> -ERR wrong number or type of arguments
--[====[ next ]====]
return redis.status_reply('all well')
--> +all well
--[====[ next ]====]
return redis.status_reply(1, 2)
--> -ERR wrong number or type of arguments
--[====[ next ]====]
error(redis.error_reply('MY code'))
--> -MY code script: 2fb03e67d01baff1f3040c0aa0285e2fd2d57128, on @user_script:1.
--[====[ next ]====]
redis.log(1)
--> -ERR redis.log() requires two arguments or more. script: 7ca66a49d54630bce6eed2fa919eb30a618e3131, on @user_script:1.
--[====[ next ]====]
redis.log('x', 'y')
--> -ERR First argument must be a number (log level). script: d882f60022385a14f51e0e6d13928a599c8603f0, on @user_script:1.
--[====[ next ]====]
redis.log(10, 'x')
--> -ERR Invalid debug level. script: 3617d2fec6ff4ff0c1b8563c809e2422ad08291a, on @user_script:1.
--[====[ next ]====]
return {redis.log(redis.LOG_DEBUG, 'x')}
--> []
--[====[ next ]====]
redis.set_repl(12345)
--> -ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE. script: 5f68f4b309000513f5dd3ebcd876d82d9287b7cb, on @user_script:1.
--[====[ next ]====]
redis.set_repl()
--> -ERR redis.set_repl() requires two arguments. script: 4fe458cffd9773cd281308a90c4804e65b83b01d, on @user_script:1.
--[====[ next ]====]
return {redis.set_repl(redis.REPL_ALL), redis.replicate_commands(), redis.breakpoint(), redis.REPL_NONE, redis.REPL_AOF, redis.REPL_SLAVE, redis.REPL_REPLICA, redis.REPL_ALL}
--> []
--[====[ next ]====]
return {redis.replicate_commands(), redis.REPL_NONE, redis.REPL_AOF, redis.REPL_SLAVE, redis.REPL_REPLICA, redis.REPL_ALL, redis.LOG_DEBUG, redis.LOG_VERBOSE, redis.LOG_NOTICE, redis.LOG_WARNING, redis.REDIS_VERSION, redis.REDIS_VERSION_NUM}
--> [1, 0, 1, 2, 2, 3, 0, 1, 2, 3, "7.0.15", 458767]
--[====[ next ]====]
return {redis.acl_check_cmd('set', 'x', 1), redis.acl_check_cmd('get', 'x')}
--> [1, 1]
--[====[ next ]====]
redis.acl_check_cmd('invalid-cmd', 'arg')
--> -ERR Invalid command passed to redis.acl_check_cmd() script: bbff7e96670a4e3ab61c7cdcae94132a3ded7fd2, on @user_script:1.
--[====[ next ]====]
redis.acl_check_cmd()
--> -ERR Please specify at least one argument for this redis lib call script: 48bccdcd00f97e9902513a7f2642455069606348, on @user_script:1.
--[====[ next ]====]
error('x')
--> -ERR user_script:1: x script: a71f4c3963e6c31b519a8b382cf91d5946ff87fa, on @user_script:1.
--[====[ next ]====]
error('x', 0)
--> -ERR x script: 477a4b98a255f0f283030d5dc326118a5f40f6e1, on @user_script:1.
--[====[ next ]====]
error('x', 2)
--> -ERR x script: 6b41b1e3daa78d75772e6190891574488228dc1d, on @user_script:1.
--[====[ next ]====]
error()
--> -ERR nil script: 240a9a8cedcccd98f68536775f1cfcd0131f51f9, on @user_script:1.
--[====[ next ]====]
error(5)
--> -ERR user_script:1: 5 script: 275bc765d3abc97f7a8b7bf86d2f6e0f5e454a40, on @user_script:1.
--[====[ next ]====]
error(true)
--> -ERR true script: 2ef2f151a75480d6b14dd364c018a27c3caa4e27, on @user_script:1.
--[====[ next ]====]
error({err = 'MY err'})
--> -MY err script: 477fb6447ddebe90efb45de62bae93a33a4fb605, on @user_script:1.
--[====[ next ]====]
error({err = 'MY err', source = 's', line = 'l'})
--> -MY err script: cc82cf0ec258649293f847f652accf96146c986d, on @user_script:1.
--[====[ next ]====]
-- differs: Redis crashes
error({})
--> -ERR unknown error script: 240fe240edc8635837030dd1f8ae42485f3253a4, on @user_script:2.
--[====[ next ]====]
local function f() error('deep') end
f()
--> -ERR user_script:1: deep script: 80a4e7272ea7cdeaae493ca401b21f361a7cb3e3, on @user_script:1.
--[====[ next ]====]
local function f() error('deep', 2) end

f()
--> -ERR user_script:3: deep script: 11f2c165d7b608d96f16c5e893f827ca4fc276d3, on @user_script:1.
--[====[ next ]====]
local function f() return error('tail') end
return f()
--> -ERR user_script:1: tail script: 8e1bfbd8b5cc44dbca1d476f65039314908c3256, on @user_script:1.
--[====[ next ]====]
local function f() return redis.call('nosuch') end
return f()
--> -ERR Unknown Redis command called from script script: fa73ce3396b97e8a7272a3c2912e39b2b4e31771, on @user_script:1.
--[====[ next ]====]
local x = nil
x.y = 1
--> -ERR user_script:2: attempt to index local 'x' (a nil value) script: 5e5ef38b53ee3b660cc6c1eb9e61efb8160ac9c4, on @user_script:2.
--[====[ next ]====]
return nosuch.x
--> -ERR user_script:1: Script attempted to access nonexistent global variable 'nosuch' script: 02283c2d65bec4028159a4a7fc3fbce3eca18d89, on @user_script:1.
--[====[ next ]====]
nosuch = 1
--> -ERR user_script:1: Attempt to modify a readonly table script: 0b2a268905fa2fd1a63e82ff3def9570b282f724, on @user_script:1.
--[====[ next ]====]
return nosuch
--> -ERR user_script:1: Script attempted to access nonexistent global variable 'nosuch' script: b9e0b5c723ae9fb921e8286efe5c72a329f41fc8, on @user_script:1.
--[====[ next ]====]
return _G.nosuch
--> -ERR user_script:1: Script attempted to access nonexistent global variable 'nosuch' script: fd7540b66c3b8b03b477ec746c7ac2c40a4557b2, on @user_script:1.
--[====[ next ]====]
return _G[{}]
--> -ERR user_script:1: Second argument to luaProtectedTableError must be a string or number script: 3336253640c122c31fa748a32cbeaba168c3a5df, on @user_script:1.
--[====[ next ]====]
return _G[1]
--> -ERR user_script:1: Script attempted to access nonexistent global variable '1' script: f4c7c66637a8e044a3027852c55d1152d2134710, on @user_script:1.
--[====[ next ]====]
setmetatable(_G, {})
--> -ERR Attempt to modify a readonly table script: c18ce7685c0ded19b3efd760c224189c5e780ffa, on @user_script:1.
--[====[ next ]====]
local g = getmetatable(_G) g.__index = {}
--> -ERR user_script:1: Attempt to modify a readonly table script: c71e6ed1b59252ae01735cefa9713a489b96beb4, on @user_script:1.
--[====[ next ]====]
_G = {}
--> -ERR user_script:1: Attempt to modify a readonly table script: 708d96556606810efbc0569580aae3cbbd5a40f9, on @user_script:1.
--[====[ next ]====]
redis.call = function() return 1 end
--> -ERR user_script:1: Attempt to modify a readonly table script: 629da99d1389da005218d7f3d56d15bc72f5ff90, on @user_script:1.
--[====[ next ]====]
cjson.encode = nil
--> -ERR user_script:1: Attempt to modify a readonly table script: 912598a6b3fbd0bb0db6028d2a29a565ba829496, on @user_script:1.
--[====[ next ]====]
bit.lshift = nil
--> -ERR user_script:1: Attempt to modify a readonly table script: a82ba18e374623e9ca06e52db162701d9cccccf6, on @user_script:1.
--[====[ next ]====]
rawset(_G, 'x', 1)
--> -ERR Attempt to modify a readonly table script: 29f4be6deec713e6cea35ad29bffaad1017b5a6c, on @user_script:1.
--[====[ next ]====]
table.insert(_G, 1)
--> -ERR Attempt to modify a readonly table script: 161d8fad052ab2d011bd2898c4ab141f7b3e8011, on @user_script:1.
--[====[ next ]====]
setmetatable(string, {})
--> -ERR Attempt to modify a readonly table script: 34aa7c48b5b05d7dbe848bde84147dfb16abae60, on @user_script:1.
--[====[ next ]====]
rawset(redis, 'call', 1)
--> -ERR Attempt to modify a readonly table script: b0792ed75f2baca385294b56379b098c054bc217, on @user_script:1.
--[====[ next ]====]
return {rawget(_G, 'nosuch') == nil, rawget(_G, 'redis') == redis, rawequal(_G, _G._G), type(getmetatable(_G)), type(getmetatable(_G).__index)}
--> [1, 1, 1, "table", "function"]
--[====[ next ]====]
return {next({}), next({5}), rawget({7}, 1), #rawset({}, 1, 2), select('#', next({}))}
--> []
--[====[ next ]====]
-- differs: here is os, with clock alone, as in Redis 7.4
local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) return table.concat(names, ' ')
--> "ARGV KEYS _G _VERSION __redis__err__handler assert bit cjson cmsgpack collectgarbage coroutine error gcinfo getmetatable ipairs load loadstring math next os pairs pcall rawequal rawget rawset redis select setmetatable string struct table tonumber tostring type unpack xpcall"
--[====[ next ]====]
local names = {} for name in pairs(_G) do if name ~= 'os' then names[#names + 1] = name end end table.sort(names) return table.concat(names, ' ')
--> "ARGV KEYS _G _VERSION __redis__err__handler assert bit cjson cmsgpack collectgarbage coroutine error gcinfo getmetatable ipairs load loadstring math next pairs pcall rawequal rawget rawset redis select setmetatable string struct table tonumber tostring type unpack xpcall"
--[====[ next ]====]
local all = {} for _, t in ipairs({'string', 'table', 'math', 'coroutine', 'cjson', 'cmsgpack', 'struct', 'bit', 'redis'}) do local names = {} for name in pairs(_G[t]) do names[#names + 1] = name end table.sort(names) all[#all + 1] = table.concat(names, ' ') end return all
--> ["byte char dump find format gfind gmatch gsub len lower match rep reverse sub upper", "concat foreach foreachi getn insert maxn remove setn sort", "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10 max min mod modf pi pow rad random randomseed sin sinh sqrt tan tanh", "create resume running status wrap yield", "_NAME _VERSION decode decode_invalid_numbers decode_max_depth encode encode_invalid_numbers encode_keep_buffer encode_max_depth encode_number_precision encode_sparse_array new null", "_COPYRIGHT _DESCRIPTION _NAME _VERSION pack unpack unpack_limit unpack_one", "pack size unpack", "arshift band bnot bor bswap bxor lshift rol ror rshift tobit tohex", "LOG_DEBUG LOG_NOTICE LOG_VERBOSE LOG_WARNING REDIS_VERSION REDIS_VERSION_NUM REPL_ALL REPL_AOF REPL_NONE REPL_REPLICA REPL_SLAVE acl_check_cmd breakpoint call debug error_reply log pcall replicate_commands set_repl setresp sha1hex status_reply"]
--[====[ next ]====]
for k in pairs(nil) do end
--> -ERR user_script:1: bad argument #1 to 'pairs' (table expected, got nil) script: 9904d8d1cfd731c6a032d45fcfe549cdcbf3336b, on @user_script:1.
--[====[ next ]====]
for k in ipairs() do end
--> -ERR user_script:1: bad argument #1 to 'ipairs' (table expected, got no value) script: 6d4311a8f4db9b723df33cbfa94e81cb5908564b, on @user_script:1.
--[====[ next ]====]
next(nil)
--> -ERR user_script:1: bad argument #1 to 'next' (table expected, got nil) script: d0be7e96b78590d07fe3e021a3fa377f83bd2d9f, on @user_script:1.
--[====[ next ]====]
-- differs: our `next` is written in Lua and cannot tell nil from nothing
next()
--> -ERR user_script:2: bad argument #1 to 'next' (table expected, got nil) script: 5b16c764698bcad55ea58fcc8d6d62545d5a272b, on @user_script:2.
--[====[ next ]====]
rawset(1, 2, 3)
--> -ERR user_script:1: bad argument #1 to 'rawset' (table expected, got number) script: cef4e5f6654a6bae959c082c97c73dfd4f564079, on @user_script:1.
--[====[ next ]====]
rawget('x', 1)
--> -ERR user_script:1: bad argument #1 to 'rawget' (table expected, got string) script: 8daa0e8a720e31008709d2196c20f35aa2506ec6, on @user_script:1.
--[====[ next ]====]
setmetatable(1, {})
--> -ERR user_script:1: bad argument #1 to 'setmetatable' (table expected, got number) script: 5cb2e1ccc2b90a4ab742f1a664a9bffe852ba489, on @user_script:1.
--[====[ next ]====]
setmetatable({}, 5)
--> -ERR user_script:1: bad argument #2 to 'setmetatable' (nil or table expected) script: 2a3d05baca79cedae2ae0cecfb525df6f9e155be, on @user_script:1.
--[====[ next ]====]
setmetatable({})
--> -ERR user_script:1: bad argument #2 to 'setmetatable' (nil or table expected) script: 61ca7d8faaa67b092a8bdebc464d51522ce6ee27, on @user_script:1.
--[====[ next ]====]
setmetatable(setmetatable({}, {__metatable = 1}), {})
--> -ERR user_script:1: cannot change a protected metatable script: d1828e5546464215d412dfe4715e05e343f86d68, on @user_script:1.
--[====[ next ]====]
return {pcall(error, 'x')}
--> [nil, "x"]
--[====[ next ]====]
return {pcall(error, {err = 'MY err'})}
--> [nil, "MY err"]
--[====[ next ]====]
return {pcall(error)}
--> [nil]
--[====[ next ]====]
return {pcall(error, {1, 2})}
--> [nil, [1, 2]]
--[====[ next ]====]
return {pcall(function() local x = nil; return x.y end)}
--> [nil, "user_script:1: attempt to index local 'x' (a nil value)"]
--[====[ next ]====]
return {pcall(function(...) return select('#', ...), ... end, 1, nil, 3)}
--> [1, 3, 1]
--[====[ next ]====]
return {pcall(unpack, {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30})}
--> [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]
--[====[ next ]====]
return {pcall(5)}
--> [nil, "attempt to call a number value"]
--[====[ next ]====]
return {pcall(string.rep)}
--> [nil, "bad argument #1 to '?' (string expected, got no value)"]
--[====[ next ]====]
return {pcall(string.rep, 'x', 'y')}
--> [nil, "bad argument #2 to '?' (number expected, got string)"]
--[====[ next ]====]
return {xpcall(function() error('x') end, function(e) return 'handled ' .. e end)}
--> [nil, "handled user_script:1: x"]
--[====[ next ]====]
return {xpcall(function() error({err = 'MY x'}) end, function(e) return 'handled ' .. e.err end)}
--> [nil, "handled MY x"]
--[====[ next ]====]
return {xpcall(function() return 1, 2, 3 end, error)}
--> [1, 1, 2, 3]
--[====[ next ]====]
return {xpcall(string.rep, function(e) return 'handled ' .. e end)}
--> [nil, "handled bad argument #1 to '?' (string expected, got no value)"]
--[====[ next ]====]
return {pcall(function() error(setmetatable({}, {__tostring = function() return 'x' end})) end)}
--> [nil, []]
--[====[ next ]====]
error(setmetatable({}, {__tostring = function() return 'x' end, __index = {err = 'MY indexed'}}))
--> -MY indexed script: 2959480fa42aa6a475cd8d22fb097d01ef5cc1f7, on @user_script:1.
--[====[ next ]====]
assert(false)
--> -ERR user_script:1: assertion failed! script: 5f4f905c794a2ecdffc5d9eefc45f07acd16b1f0, on @user_script:1.
--[====[ next ]====]
assert(nil, 'said')
--> -ERR user_script:1: said script: 400d9a7ca7218fa874e32ac1c4dca790d0127c20, on @user_script:1.
--[====[ next ]====]
assert(false, {err = 'MY said'})
--> -ERR user_script:1: bad argument #2 to 'assert' (string expected, got table) script: 0054f01eedd34782458156468e1ed363c4901278, on @user_script:1.
--[====[ next ]====]
return {assert(1, 2, 3)}
--> [1, 2, 3]
--[====[ next ]====]
local co = coroutine.create(function(a, b) local c = coroutine.yield(a + b) return c * 2 end)
return {coroutine.resume(co, 1, 2), select(2, coroutine.resume(co, 10)), coroutine.status(co), select(2, coroutine.resume(co))}
--> [1, 20, "dead", "cannot resume dead coroutine"]
--[====[ next ]====]
local f = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) return {f(), f(), f(), f()}
--> [1, 2, 3]
--[====[ next ]====]
coroutine.wrap(function() error('abc') end)()
--> -ERR user_script:1: user_script:1: abc script: 93e23d9ab871f3b853fe9f6e0c25ee6ba1420741, on @user_script:1.
--[====[ next ]====]
coroutine.wrap(function() error({err = 'MY abc'}) end)()
--> -MY abc script: bb9811e58e331b3fefc910fdce916b50b522d027, on @user_script:1.
--[====[ next ]====]
return {coroutine.resume(coroutine.create(function() error('abc') end))}
--> [nil, "user_script:1: abc"]
--[====[ next ]====]
return {coroutine.resume(coroutine.create(function() redis.call('nosuch') end))}
--> [nil, -ERR Unknown Redis command called from script]
--[====[ next ]====]
local ok, e = coroutine.resume(coroutine.create(function() redis.call('nosuch') end)) return {type(e), e.err}
--> ["table", "ERR Unknown Redis command called from script"]
--[====[ next ]====]
return {coroutine.resume(coroutine.create(function() return redis.call('echo', 'in a coroutine') end))}
--> [1, "in a coroutine"]
--[====[ next ]====]
coroutine.yield(1)
--> -ERR attempt to yield across metamethod/C-call boundary script: 6978aff45b50b587987e8a54c22a2dd933c1642f, on @user_script:1.
--[====[ next ]====]
coroutine.create(1)
--> -ERR user_script:1: bad argument #1 to 'create' (Lua function expected) script: 87c28232f06b91e137f7bdbf80c21f86a3c9d160, on @user_script:1.
--[====[ next ]====]
coroutine.resume(1)
--> -ERR user_script:1: bad argument #1 to 'resume' (coroutine expected) script: ed8f33457676769f7af055a9837ec09969b3a537, on @user_script:1.
--[====[ next ]====]
coroutine.wrap()
--> -ERR user_script:1: bad argument #1 to 'wrap' (Lua function expected) script: 6bf6769fa3282afb90194264b93b5a3cbf18f8b7, on @user_script:1.
--[====[ next ]====]
local f = coroutine.wrap(function() end) f() f()
--> -ERR user_script:1: cannot resume dead coroutine script: a7892bddbc9cd599dc16d246b7c2d23cda29f5fb, on @user_script:1.
--[====[ next ]====]
return loadstring('return 1 + 1')()
--> 2
--[====[ next ]====]
return {loadstring('return (')}
--> []
--[====[ next ]====]
return {select(2, loadstring('return (', '=name')), select(2, loadstring('return (', '@name')), select(2, loadstring('x\ny\nreturn ('))}
--> ["name:1: unexpected symbol near '<eof>'", "name:1: unexpected symbol near '<eof>'", "[string \"x...\"]:2: '=' expected near 'y'"]
--[====[ next ]====]
return loadstring(string.dump(function() return 1 end))()
--> -ERR user_script:1: attempt to call a nil value script: 6e22e4c329951b83fca4112cd7c26a903cc14055, on @user_script:1.
--[====[ next ]====]
return {select(2, loadstring('\27Lua', '=x')), select(2, loadstring('\27Lua'))}
--> ["x:1: unexpected symbol near 'char(27)'", "[string \"\x1bLua\"]:1: unexpected symbol near 'char(27)'"]
--[====[ next ]====]
local n = 0 return load(function() n = n + 1 return ({'return ', '1 ', '+ 1'})[n] end)()
--> 2
--[====[ next ]====]
return {pcall(load, function() error('x') end)}
--> [1]
--[====[ next ]====]
return {pcall(load, function() return {} end)}
--> [1]
--[====[ next ]====]
-- differs: in Redis its own handler makes a table of the error, here it is a string as it is under `pcall`
return {load(function() error('x') end)}
--> []
--[====[ next ]====]
return {select(2, load(function() return ({[0]='\27', 'Lua'})[0] end))}
--> ["(load):1: unexpected symbol near 'char(27)'"]
--[====[ next ]====]
return {select(2, load(function() return 'x x' end))}
--> ["(load):1: '=' expected near 'xx'"]
--[====[ next ]====]
load(5)
--> -ERR user_script:1: bad argument #1 to 'load' (function expected, got number) script: 15c1bf09f4dc08d005f35806eca4284ffe599c00, on @user_script:1.
--[====[ next ]====]
loadstring()
--> -ERR user_script:1: bad argument #1 to 'loadstring' (string expected, got no value) script: 4f82d30cb702583ac0c8aafee5993603eeb9fc35, on @user_script:1.
--[====[ next ]====]
loadstring('x = 1')()
--> -ERR [string "x = 1"]:1: Attempt to modify a readonly table script: af8c17c29f2ceae073d01a67fd02fb3f94a47d21, on x = 1:1.
--[====[ next ]====]
return {type(collectgarbage('count')), collectgarbage(), type(gcinfo()), collectgarbage('step')}
--> ["number", 0, "number", nil]
--[====[ next ]====]
collectgarbage('nonsense')
--> -ERR user_script:1: bad argument #1 to 'collectgarbage' (invalid option 'nonsense') script: 8e260232363ecfa2c31ae2712bc19306ad7e5e1e, on @user_script:1.
--[====[ next ]====]
x =
--> -ERR Error compiling script (new function): user_script:2: unexpected symbol near '<eof>'
--[====[ next ]====]
return 1 1
--> -ERR Error compiling script (new function): user_script:1: '<eof>' expected near '1'
--[====[ next ]====]

return "abc
--> -ERR Error compiling script (new function): user_script:2: unfinished string near '"abc'
--[====[ next ]====]
goto = nil x y
--> -ERR Error compiling script (new function): user_script:1: '=' expected near 'y'
--[====[ next ]====]
#!lua flags=no-writes
return 'flagged'
--> "flagged"
--[====[ next ]====]
#!lua flags=nonsense
return 1
--> -ERR Unexpected flag in script shebang: nonsense
--[====[ next ]====]
#!lua flags=no-writes
error('second line')
--> -ERR user_script:2: second line script: 8e52eb56d5c6e7e45840f0e50edef5eff8d4bd8c, on @user_script:2.
--[====[ next ]====]
return {tostring(nil), tostring(true), tostring('x'), tonumber('10'), tonumber('0x10'), tonumber('z', 36), tonumber('  5  '), tonumber('x') == nil, tonumber('1e2')}
--> ["nil", "true", "x", 10, 16, 35, 5, 1, 100]
--[====[ next ]====]
return {_VERSION, unpack({1, 2, 3}, 2)}
--> ["Lua 5.1", 2, 3]
--[====[ next ]====]
math.randomseed(10) return {tostring(math.random()), math.random(100), math.random(5, 10), tostring(math.random())}
--> ["0.87885112309775", 80, 7, "0.52567325836312"]
--[====[ next ]====]
math.randomseed('10') return tostring(math.random())
--> "0.87885112309775"
--[====[ next ]====]
math.randomseed(-1) return {tostring(math.random()), math.random(2147483647), math.random(-5, 5)}
--> ["0.30002572727391", 97305741, -2]
--[====[ next ]====]
math.random(0)
--> -ERR user_script:1: bad argument #1 to 'random' (interval is empty) script: e8b2ce6a92ce48bcd140e56057a4023f4f642237, on @user_script:1.
--[====[ next ]====]
math.random(2, 1)
--> -ERR user_script:1: bad argument #2 to 'random' (interval is empty) script: 2f77682ac881a6b7be10f3ba8e1d7ea5fc0b23fc, on @user_script:1.
--[====[ next ]====]
math.random(1, 2, 3)
--> -ERR user_script:1: wrong number of arguments script: 19388162bae9399c87acbe6e0bd9aef192cd2934, on @user_script:1.
--[====[ next ]====]
math.randomseed({})
--> -ERR user_script:1: bad argument #1 to 'randomseed' (number expected, got table) script: 607386a277aef836539c59760b5c16187118ddba, on @user_script:1.
--[====[ next ]====]
return {string.find('hello world', 'o w'), string.find('hello', 'l+'), string.find('hello', 'xyz') == nil, string.find('', ''), string.find('abc', '', 10), string.find('a.b', '.', 1, true), string.find('abc', 'b', -1) == nil}
--> [5, 3, 1, 1, 4, 2, 1]
--[====[ next ]====]
return {string.find('key=value', '(%w+)=(%w+)'), select(3, string.find('key=value', '(%w+)=(%w+)'))}
--> [1, "key", "value"]
--[====[ next ]====]
return {string.match('2024-01-15', '(%d+)-(%d+)-(%d+)')}
--> ["2024", "01", "15"]
--[====[ next ]====]
return {string.match('  trim  ', '^%s*(.-)%s*$'), string.match('abc', '()b()'), string.match('abc', '^b') == nil, string.match('[[x]]', '%[%[(.*)%]%]')}
--> ["trim", 2, 1, "x"]
--[====[ next ]====]
return {('THE (quick) fox'):find('%((%a+)%)'), ('THE (quick) fox'):match('%((%a+)%)'), ('f(a(b)c)d'):match('%b()'), ('THE (quick) fox'):gsub('%f[%a]%a+', string.lower)}
--> [5, "quick", "(a(b)c)", "the (quick) fox", 3]
--[====[ next ]====]
local words = {} for w in ('one two  three'):gmatch('%a+') do words[#words + 1] = w end for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do words[#words + 1] = k .. v end for p in ('abc'):gmatch('()') do words[#words + 1] = p end return words
--> ["one", "two", "three", "a1", "b2", 1, 2, 3, 4]
--[====[ next ]====]
return {('hello'):gsub('l', 'L'), ('hello'):gsub('l', 'L', 1), ('hello'):gsub('', '-'), ('abc'):gsub('%w', '%0%0'), ('abc def'):gsub('(%w+) (%w+)', '%2 %1'), ('x'):gsub('x', '%%'), ('abc'):gsub('b', {b = 'B'}), ('abc'):gsub('%w', function(c) if c == 'b' then return 'B' end end), ('abc'):gsub('%w', {a = 1, b = false})}
--> ["heLLo", "heLlo", "-h-e-l-l-o-", "aabbcc", "def abc", "%", "aBc", "aBc", "1bc", 3]
--[====[ next ]====]
return {('abc'):gsub('^a', 'x'), ('aaa'):gsub('^a', 'x'), ('a,b,,c'):gsub(',', ';'), ('x^y'):gsub('%^', '+'), ('$name'):gsub('%$(%w+)', {name = 'value'}), ('a\0b'):gsub('%z', '0'), ('abc'):gsub('.', '%')}
--> ["xbc", "xaa", "a;b;;c", "x+y", "value", "a0b", "\x00\x00\x00", 3]
--[====[ next ]====]
return {('x'):rep(3), ('ab'):rep(0), ('ab'):rep(-1), ('hello'):byte(1, -1), string.char(104, 105), ('%d %5.2f %s %q %x'):format(5, 3.14159, 'x', 'a"b', 255), ('Hello'):upper():lower():reverse():len(), ('hello'):sub(2, -2)}
--> ["xxx", "", "", 104, "hi", "5  3.14 x \"a\\\"b\" ff", 5, "ell"]
--[====[ next ]====]
return {('[a-c]+'):find('[a-c]', 1, true), ('b-d'):match('[a%-]'), ('b-d'):match('[%a-]+'), (']'):match('[]]'), ('^'):match('[%^x]'), ('x'):match('[^%d]'), ('a-z'):match('[a-]+')}
--> [1, "-", "b-d", "]", "^", "x", "a-"]
--[====[ next ]====]
return {('aXb'):match('%u'), ('aXb'):match('%L'), ('a b'):match('%S+'), ('a\tb'):match('%c') == '\t', ('a1f'):match('%x+'), ('!a'):match('%p'), ('abcabc'):match('(a)(b)c%1%2'), ('aa bb'):match('(%w)%1', 2)}
--> ["X", "X", "a", 1, "a1f", "!", "a", "b"]
--[====[ next ]====]
string.find('x', '[a')
--> -ERR user_script:1: malformed pattern (missing ']') script: aae0d0fa94cd8fec6840270b35ae7f2341e067ff, on @user_script:1.
--[====[ next ]====]
string.find('x', '%')
--> -ERR user_script:1: malformed pattern (ends with '%') script: 4aba5bab4e3d0f3997423f8691db1ceb2c976277, on @user_script:1.
--[====[ next ]====]
string.find('x', '(')
--> -ERR user_script:1: unfinished capture script: a88a138c9fca22afccc468a73e8f65a21cdcafda, on @user_script:1.
--[====[ next ]====]
string.find('x', ')')
--> nil
--[====[ next ]====]
string.find('x', '%1')
--> -ERR user_script:1: invalid capture index script: b925b2b634116448183a269af418ad63c83e9cfc, on @user_script:1.
--[====[ next ]====]
string.find('x', '%f')
--> -ERR user_script:1: missing '[' after '%f' in pattern script: 91efbad4be9d20af79e495ed375c2f76ac3e11f2, on @user_script:1.
--[====[ next ]====]
string.find('x', '%b')
--> -ERR user_script:1: unbalanced pattern script: 170ae4c1a4d2033001dc3d6ac09bb2bdcd3ac026, on @user_script:1.
--[====[ next ]====]
string.find('x', '(()')
--> -ERR user_script:1: unfinished capture script: 454d1b47b65744160b6ed25bca1bff75e82be246, on @user_script:1.
--[====[ next ]====]
string.gsub('x', 'x', '%2')
--> -ERR user_script:1: invalid capture index script: ec5701e3ebf030d98041d3bc54eb92ccae12aca7, on @user_script:1.
--[====[ next ]====]
string.gsub('x', 'x', function() return {} end)
--> -ERR user_script:1: invalid replacement value (a table) script: b2d8c48388d34845517476a1dad8eb9073d3800f, on @user_script:1.
--[====[ next ]====]
string.gsub('x', 'x', true)
--> -ERR user_script:1: bad argument #3 to 'gsub' (string/function/table expected) script: 6b4f129109df6dae9d9946613515f840fc7cf4c3, on @user_script:1.
--[====[ next ]====]
string.gsub('x', 'x')
--> -ERR user_script:1: bad argument #3 to 'gsub' (string/function/table expected) script: 1f216e36a34da68082a9682e814469fb6c60768c, on @user_script:1.
--[====[ next ]====]
string.gsub('x', 'x', function() error('inside') end)
--> -ERR user_script:1: inside script: 67b9f739b6a2164cbc489a27661468d7ee94506d, on @user_script:1.
--[====[ next ]====]
string.gsub('x', 'x', function() error({err = 'MY inside'}) end)
--> -MY inside script: 83630ac892352f30a44e223117650a94237924ac, on @user_script:1.
--[====[ next ]====]
return {pcall(string.gsub, 'x', 'x', function() redis.call('nosuch') end)}
--> [nil, "ERR Unknown Redis command called from script"]
--[====[ next ]====]
string.find()
--> -ERR user_script:1: bad argument #1 to 'find' (string expected, got no value) script: 49b7989e4a4107aa765f3ac85ab089721e2125d3, on @user_script:1.
--[====[ next ]====]
string.find('x')
--> -ERR user_script:1: bad argument #2 to 'find' (string expected, got no value) script: 7213fc1e2c3d5622625a4f9f334f68f8071458fd, on @user_script:1.
--[====[ next ]====]
string.find({}, 'x')
--> -ERR user_script:1: bad argument #1 to 'find' (string expected, got table) script: c56b92c0789c909d60f97ad43325756ee35776dc, on @user_script:1.
--[====[ next ]====]
return ('x'):find(nil)
--> -ERR user_script:1: bad argument #1 to 'find' (string expected, got nil) script: 31853bad0f955994f2208f49268440d0d82d0809, on @user_script:1.
--[====[ next ]====]
return ('x'):rep()
--> -ERR user_script:1: bad argument #1 to 'rep' (number expected, got no value) script: 273e9350895e400d7ffcc676c2ca571c0d8711d6, on @user_script:1.
--[====[ next ]====]
return ('x'):rep({})
--> -ERR user_script:1: bad argument #1 to 'rep' (number expected, got table) script: dd28835a32e9bcb4ea7982c9963510be78a0bf5e, on @user_script:1.
--[====[ next ]====]
string.gmatch('x')
--> -ERR user_script:1: bad argument #2 to 'gmatch' (string expected, got no value) script: 3df588d0a33feaed5caa3e4cb36d33e5e06da2a6, on @user_script:1.
--[====[ next ]====]
local t = {5, 2, 8, 1} table.sort(t) table.sort(t, function(a, b) return a > b end) table.insert(t, 9) table.insert(t, 1, 0) table.remove(t, 2) return {t, table.concat(t, ','), table.getn(t), table.maxn({[10] = 1}), table.remove(t)}
--> [[0, 5, 2, 1], "0,5,2,1,9", 5, 10, 9]
--[====[ next ]====]
local t = {'b', 'a', 'C', 'aa', '', 'b\0c', 'b\0a'} table.sort(t) return t
--> ["", "C", "a", "aa", "b", "b\x00a", "b\x00c"]
--[====[ next ]====]
local t = {3.5, -1, 2, 1/0, -1/0} table.sort(t) return {tostring(t[1]), tostring(t[2]), tostring(t[3]), tostring(t[4]), tostring(t[5])}
--> ["-inf", "-1", "2", "3.5", "inf"]
--[====[ next ]====]
local t, m = {}, {__lt = function(a, b) return a.n < b.n end} for i = 1, 9 do t[i] = setmetatable({n = i * 7 % 10}, m) end table.sort(t) local r = {} for i, v in ipairs(t) do r[i] = v.n end return r
--> [1, 2, 3, 4, 5, 6, 7, 8, 9]
--[====[ next ]====]
table.sort({1, 'x'})
--> -ERR attempt to compare string with number script: 356c77e00ad48b36d27483e66a4bbd4a5a853d17, on @user_script:1.
--[====[ next ]====]
table.sort({{}, {}})
--> -ERR attempt to compare two table values script: dcb8ca700bae915dc7233f7db3d4507f44a229f7, on @user_script:1.
--[====[ next ]====]
table.sort({3, 2, 1, 5, 4}, function() return true end)
--> -ERR user_script:1: invalid order function for sorting script: e1f726c43126d6b0340abbd6d34e1b566f57c49d, on @user_script:1.
--[====[ next ]====]
table.sort({3, 2, 1}, function() error('inside') end)
--> -ERR user_script:1: inside script: f6689e872d7948eb94b74e913544ab645f84e15d, on @user_script:1.
--[====[ next ]====]
table.sort({3, 2, 1}, 5)
--> -ERR user_script:1: bad argument #2 to 'sort' (function expected, got number) script: fcf0ff9e9ad835c74e217a6ac171212e6d34bb46, on @user_script:1.
--[====[ next ]====]
table.sort()
--> -ERR user_script:1: bad argument #1 to 'sort' (table expected, got no value) script: cffd2438ff1067708bc0fb4537b811b2b8f6d8f7, on @user_script:1.
--[====[ next ]====]
table.insert({})
--> -ERR user_script:1: wrong number of arguments to 'insert' script: 6868d998901a6537c7d378406a2a129ec4f80c5f, on @user_script:1.
--[====[ next ]====]
table.insert({}, 1, 2, 3)
--> -ERR user_script:1: wrong number of arguments to 'insert' script: a31d80853eefc4560d467e92ac79d8499be01ea6, on @user_script:1.
--[====[ next ]====]
table.insert(nil, 1)
--> -ERR user_script:1: bad argument #1 to 'insert' (table expected, got nil) script: 766ef7aa3e8f30999c5af2e183fcf46de1b1321d, on @user_script:1.
--[====[ next ]====]
table.insert({}, 'x', 1)
--> -ERR user_script:1: bad argument #2 to 'insert' (number expected, got string) script: 761ff55a11bb276a0f9e55c69ef48d31754cbb6c, on @user_script:1.
--[====[ next ]====]
local t = {} table.insert(t, 5, 'far') return {#t, t[5]}
--> [0, "far"]
--[====[ next ]====]
table.concat({1, {}, 3})
--> -ERR user_script:1: invalid value (table) at index 2 in table for 'concat' script: f420b9775231ce467ca9ea93406f8747ff6d8194, on @user_script:1.
--[====[ next ]====]
table.foreach({1, 2}, function(k, v) error('each ' .. k) end)
--> -ERR user_script:1: each 1 script: 9be7d84e2934ef39b72c71a843e0cf23b139a7b0, on @user_script:1.
--[====[ next ]====]
table.setn({}, 1)
--> -ERR user_script:1: 'setn' is obsolete script: b468bc9e862453edcb896027158566cb120858d0, on @user_script:1.
--[====[ next ]====]
return {bit.tobit(0xffffffff), bit.bnot(0), bit.band(0xff, 0x0f), bit.bor(1, 2, 4, 8), bit.bxor(5, 3), bit.lshift(1, 31), bit.rshift(-1, 28), bit.arshift(-8, 2), bit.rol(0x12345678, 8), bit.ror(0x12345678, 8), bit.bswap(0x12345678), bit.tohex(255), bit.tohex(255, 4), bit.tohex(-1, -8), bit.tohex(1, 0), bit.tobit(2^40 + 5), bit.tobit(1.5), bit.tobit(2.5), bit.tobit('7')}
--> [-1, -1, 15, 15, 6, -2147483648, 15, -2, 878082066, 2014458966, 2018915346, "000000ff", "00ff", "FFFFFFFF", "", 5, 2, 2, 7]
--[====[ next ]====]
bit.band()
--> -ERR user_script:1: bad argument #1 to 'band' (number expected, got no value) script: e26f9f44160ce2f84b7563e0ed8c8df7a2eae1ec, on @user_script:1.
--[====[ next ]====]
bit.band('x')
--> -ERR user_script:1: bad argument #1 to 'band' (number expected, got string) script: 45cec184d3e6d4d53535f6673f1aa453076d1cfe, on @user_script:1.
--[====[ next ]====]
bit.lshift(1)
--> -ERR user_script:1: bad argument #2 to 'lshift' (number expected, got no value) script: c49a31046228ff5d30b84b3e40a1007ca109a221, on @user_script:1.
--[====[ next ]====]
bit.bor(1, {})
--> -ERR user_script:1: bad argument #2 to 'bor' (number expected, got table) script: 540403bb0cfe1bae1987bc7710f3b65b9938d5ff, on @user_script:1.
--[====[ next ]====]
return cjson.encode({1, 2, 'three', true, false, cjson.null, {a = 1}, {}})
--> "[1,2,\"three\",true,false,null,{\"a\":1},{}]"
--[====[ next ]====]
return {cjson.encode('a"b\\c/d\n\r\t\b\f\0\127é'), cjson.encode(1), cjson.encode(0.1), cjson.encode(1e100), cjson.encode(1/3), cjson.encode(nil), cjson.encode(true), cjson.encode(100000000000000), cjson.encode(-5)}
--> ["\"a\\\"b\\\\c\\/d\\n\\r\\t\\b\\f\\u0000\\u007f\xc3\xa9\"", "1", "0.1", "1e+100", "0.33333333333333", "null", "true", "1e+14", "-5"]
--[====[ next ]====]
return {cjson.encode({[1] = 1, [3] = 3}), cjson.encode({[5] = 1}), cjson.encode({a = {b = {c = 1}}}), cjson.encode({one = 1, [1] = 1}) == '{"1":1,"one":1}' or cjson.encode({one = 1, [1] = 1})}
--> ["[1,null,3]", "[null,null,null,null,1]", "{\"a\":{\"b\":{\"c\":1}}}", "{\"one\":1,\"1\":1}"]
--[====[ next ]====]
cjson.encode({[1] = 1, [1000] = 2})
--> -ERR user_script:1: Cannot serialise table: excessively sparse array script: 1e1bddea5714d8b5d10f413c36b8fe618b9d0a82, on @user_script:1.
--[====[ next ]====]
cjson.encode_sparse_array(true) local r = cjson.encode({[1000] = 2}) cjson.encode_sparse_array(false) return r
--> "{\"1000\":2}"
--[====[ next ]====]
return {cjson.encode_sparse_array(), cjson.encode_max_depth(), cjson.decode_max_depth(), cjson.encode_number_precision(), cjson.encode_keep_buffer(), cjson.encode_invalid_numbers(), cjson.decode_invalid_numbers()}
--> [nil, 1000, 1000, 14, 1, nil, 1]
--[====[ next ]====]
return {pcall(cjson.encode_max_depth, 0), pcall(cjson.encode_number_precision, 15), pcall(cjson.encode_invalid_numbers, 'x'), pcall(cjson.encode_keep_buffer, 1, 2), pcall(cjson.encode_sparse_array, 1)}
--> [nil, nil, nil, nil, nil, "bad argument #1 to '?' (invalid option '1')"]
--[====[ next ]====]
cjson.encode_invalid_numbers('null') return {cjson.encode(1/0), cjson.encode_invalid_numbers(), cjson.encode_invalid_numbers(true), cjson.encode(0/0), cjson.encode(-1/0), cjson.encode_invalid_numbers('off')}
--> ["null", "null", 1, "nan", "-inf", nil]
--[====[ next ]====]
cjson.encode(1/0)
--> -ERR user_script:1: Cannot serialise number: must not be NaN or Inf script: fb91cc8d20db83aea0ba654845a6f115c5ba291e, on @user_script:1.
--[====[ next ]====]
cjson.encode({[false] = 1})
--> -ERR user_script:1: Cannot serialise boolean: table key must be a number or string script: 26f97bf41fac5d4b652be4ea62dbd87a53088277, on @user_script:1.
--[====[ next ]====]
cjson.encode(function() end)
--> -ERR user_script:1: Cannot serialise function: type not supported script: 8ca9e4c4e12c8c966f14de8bf17eecadf3d49f48, on @user_script:1.
--[====[ next ]====]
cjson.encode({f = print == nil, g = pcall})
--> -ERR user_script:1: Script attempted to access nonexistent global variable 'print' script: eae5430f8ac84fb060e1ce25d941fcd90eab5866, on @user_script:1.
--[====[ next ]====]
cjson.encode()
--> -ERR user_script:1: bad argument #1 to 'encode' (expected 1 argument) script: d053d432ba352bc11c3ad910110ddd0190a75b1d, on @user_script:1.
--[====[ next ]====]
cjson.encode(1, 2)
--> -ERR user_script:1: bad argument #1 to 'encode' (expected 1 argument) script: 44e1882e627ecf7a5a0aaa78747fbdc77b095984, on @user_script:1.
--[====[ next ]====]
cjson.encode_max_depth(2) local ok, e = pcall(cjson.encode, {{{1}}}) cjson.encode_max_depth(1000) return e
--> "Cannot serialise, excessive nesting (3)"
--[====[ next ]====]
cjson.encode_number_precision(3) local r = cjson.encode(3.14159) cjson.encode_number_precision(14) return r
--> "3.14"
--[====[ next ]====]
local d = cjson.decode('{"a": [1, 2.5, -3e2, true, false, null, "x\\n\\u00e9\\ud83d\\ude00"], "b": {}}') return {d.a[1], tostring(d.a[2]), d.a[3], tostring(d.a[4]), tostring(d.a[5]), d.a[6] == cjson.null, d.a[7], type(d.b)}
--> [1, "2.5", -300, "true", "false", 1, "x\x0a\xc3\xa9\xf0\x9f\x98\x80", "table"]
--[====[ next ]====]
return table.concat(cjson.decode('[0.0, -5e3, -1, 0.3e-3, 1023.2, 0e10]'), ' ')
--> "0 -5000 -1 0.0003 1023.2 0"
--[====[ next ]====]
return {cjson.decode('"x"'), cjson.decode('5'), tostring(cjson.decode('true')), tostring(cjson.decode('0x1F')), tostring(cjson.decode('nan')), tostring(cjson.decode('-inf')), tostring(cjson.decode('Infinity')), tostring(cjson.decode('+5')), tostring(cjson.decode('0x1.8p1')), tostring(cjson.decode('007'))}
--> ["x", 5, "true", "31", "nan", "-inf", "inf", "5", "3", "7"]
--[====[ next ]====]
local r = {} for i, text in ipairs({'', '{', '[1', '[1,', '[1 2]', '{"a"}', '{"a":}', '{a:1}', '{"a":1,}', '"abc', '"\\x"', '"\\u12"', '"\\ud800"', '"\\ud800\\u0041"', '"\\udc00"', 'tru', 'nul', '1 2', '-', '-x', '.5', '@', '[1]x', '\0', 'x\0', '1.', '1e', '1e+', '0x', 'nan(', '[01]', "{'a':1}"}) do r[i] = (function(ok, v) return ok and type(v) or v end)(pcall(cjson.decode, text)) end return r
--> ["Expected value but found T_END at character 1", "Expected object key string but found T_END at character 2", "Expected comma or array end but found T_END at character 3", "Expected value but found T_END at character 4", "Expected comma or array end but found T_NUMBER at character 4", "Expected colon but found T_OBJ_END at character 5", "Expected value but found T_OBJ_END at character 6", "Expected object key string but found invalid token at character 2", "Expected object key string but found T_OBJ_END at character 8", "Expected value but found unexpected end of string at character 5", "Expected value but found invalid escape code at character 2", "Expected value but found invalid unicode escape code at character 2", "Expected value but found invalid unicode escape code at character 2", "Expected value but found invalid unicode escape code at character 2", "Expected value but found invalid unicode escape code at character 2", "Expected value but found invalid token at character 1", "Expected value but found invalid token at character 1", "Expected the end but found T_NUMBER at character 3", "Expected value but found invalid number at character 1", "Expected value but found invalid number at character 1", "Expected value but found invalid token at character 1", "Expected value but found invalid token at character 1", "Expected the end but found invalid token at character 4", "Expected value but found T_END at character 1", "JSON parser does not support UTF-16 or UTF-32", "number", "Expected the end but found invalid token at character 2", "Expected the end but found invalid token at character 2", "Expected the end but found invalid token at character 2", "Expected the end but found invalid token at character 4", "table", "Expected object key string but found invalid token at character 2"]
--[====[ next ]====]
cjson.decode_invalid_numbers(false) local r = {} for i, text in ipairs({'nan', 'inf', '0x10', '01', '-01', '+1', '-inf', '1', '0', '-0x1', '.1'}) do r[i] = (function(ok, v) return ok and type(v) or v end)(pcall(cjson.decode, text)) end cjson.decode_invalid_numbers(true) return r
--> ["Expected value but found invalid token at character 1", "Expected value but found invalid token at character 1", "Expected value but found invalid number at character 1", "Expected value but found invalid number at character 1", "Expected value but found invalid number at character 1", "Expected value but found invalid token at character 1", "Expected value but found invalid number at character 1", "number", "number", "Expected value but found invalid number at character 1", "Expected value but found invalid token at character 1"]
--[====[ next ]====]
cjson.decode_max_depth(2) local ok, e = pcall(cjson.decode, '[[[1]]]') cjson.decode_max_depth(1000) return e
--> "Found too many nested data structures (3) at character 3"
--[====[ next ]====]
cjson.decode()
--> -ERR user_script:1: bad argument #1 to 'decode' (expected 1 argument) script: 713088adc38b285b7e8e724d944adcc6ed0f1551, on @user_script:1.
--[====[ next ]====]
cjson.decode({})
--> -ERR user_script:1: bad argument #1 to 'decode' (string expected, got table) script: 90f831e078a6bc90eab28d434899386b80c6f10d, on @user_script:1.
--[====[ next ]====]
return {cjson.decode(5), cjson._NAME, cjson._VERSION, type(cjson.null), cjson.null == cjson.decode('null'), tostring(cjson.null) == 'userdata: NULL' or tostring(cjson.null), type(cjson.new().encode)}
--> [5, "cjson", "2.1.0", "userdata", 1, "userdata: (nil)", "function"]
--[====[ next ]====]
local function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end local r = {} for i, v in ipairs({0, 1, 127, 128, 255, 256, 65535, 65536, 2^32 - 1, 2^32, 2^53, -1, -32, -33, -128, -129, -32768, -32769, -2^31, -2^31 - 1, -2^53, 0.1, 0.5, 1e300, 1/0, 'x', ('x'):rep(31), true, false, {}, {1, 2}, {a = 1}, {[2] = 1}, {[1.5] = 1}, pcall}) do r[i] = hex(cmsgpack.pack(v)) end return r
--> ["00", "01", "7f", "cc80", "ccff", "cd0100", "cdffff", "ce00010000", "ceffffffff", "cf0000000100000000", "cf0020000000000000", "ff", "e0", "d0df", "d080", "d1ff7f", "d18000", "d2ffff7fff", "d280000000", "d3ffffffff7fffffff", "d3ffe0000000000000", "cb3fb999999999999a", "ca3f000000", "cb7e37e43c8800759c", "ca7f800000", "a178", "bf78787878787878787878787878787878787878787878787878787878787878", "c3", "c2", "90", "920102", "81a16101", "810201", "81ca3fc0000001", "c0"]
--[====[ next ]====]
local function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end return {hex(cmsgpack.pack(('x'):rep(32))):sub(1, 8), hex(cmsgpack.pack(('x'):rep(256))):sub(1, 8), hex(cmsgpack.pack(('x'):rep(65536))):sub(1, 12), hex(cmsgpack.pack(1, 'a', nil, {1}))}
--> ["d9207878", "da010078", "db0001000078", "01a161c09101"]
--[====[ next ]====]
local a = {x = nil, y = 5} local b = {x = a} a.x = b local encoded = cmsgpack.pack(a) local h = '' for i = 1, #encoded do h = h .. string.format('%02x', string.byte(encoded, i)) end return #h
--> 146
--[====[ next ]====]
local r = {} for i, s in ipairs({'\0', '\127', '\255', '\224', '\204\255', '\205\255\255', '\206\255\255\255\255', '\207\0\0\0\1\0\0\0\0', '\207\255\255\255\255\255\255\255\255', '\208\128', '\209\128\0', '\210\128\0\0\0', '\211\255\255\255\255\0\0\0\0', '\192', '\194', '\195', '\202\63\128\0\0', '\203\63\240\0\0\0\0\0\0', '\163abc', '\217\3abc', '\218\0\3abc', '\219\0\0\0\3abc'}) do r[i] = tostring((cmsgpack.unpack(s))) end return r
--> ["0", "127", "-1", "-32", "255", "65535", "4294967295", "4294967296", "-1", "-128", "-32768", "-2147483648", "-4294967296", "nil", "false", "true", "1", "1", "abc", "abc", "abc", "abc"]
--[====[ next ]====]
return {cmsgpack.unpack('\147\1\2\3'), cmsgpack.unpack('\220\0\2\1\2'), cmsgpack.unpack('\129\161a\1').a, cmsgpack.unpack('\222\0\1\161b\2').b, cmsgpack.unpack('\1\2\3')}
--> [[1, 2, 3], [1, 2], 1, 2, 1, 2, 3]
--[====[ next ]====]
return {cmsgpack.unpack_one('\1\2\3'), select(2, cmsgpack.unpack_one('\1\2\3', 1)), cmsgpack.unpack_limit('\1\2\3', 2), cmsgpack.unpack_limit('\1\2\3', 2, 1), cmsgpack.unpack_limit('\1\2\3', 5), cmsgpack.unpack_limit('\1\2\3', 0, 0)}
--> [1, 2, 2, -1, -1, 1, 2, 3]
--[====[ next ]====]
local r = {} for i, f in ipairs({function() return cmsgpack.pack() end, function() return cmsgpack.unpack('\204') end, function() return cmsgpack.unpack('\193') end, function() return cmsgpack.unpack('\163ab') end, function() return cmsgpack.unpack('\147\1') end, function() return cmsgpack.unpack_one('x', 5) end, function() return cmsgpack.unpack_one('x', -1) end, function() return cmsgpack.unpack_limit('x', -1, 0) end, function() return cmsgpack.unpack() end, function() return cmsgpack.unpack('\129\192\1') end, function() return cmsgpack.unpack_limit('x') end}) do r[i] = tostring(select(2, pcall(f))) end return r
--> ["user_script:1: bad argument #0 to 'pack' (MessagePack pack needs input.)", "user_script:1: Missing bytes in input.", "user_script:1: Bad data format in input.", "user_script:1: Missing bytes in input.", "user_script:1: Missing bytes in input.", "user_script:1: Start offset 5 greater than input length 1.", "user_script:1: Invalid request to unpack with offset of -1 and limit of 1.", "user_script:1: Invalid request to unpack with offset of 0 and limit of 1.", "user_script:1: bad argument #1 to 'unpack' (string expected, got no value)", "table index is nil", "user_script:1: bad argument #2 to 'unpack_limit' (number expected, got no value)"]
--[====[ next ]====]
cmsgpack.pack()
--> -ERR user_script:1: bad argument #0 to 'pack' (MessagePack pack needs input.) script: afd6fe56b17d2a380f6867232d43a372e20468f5, on @user_script:1.
--[====[ next ]====]
return {cmsgpack._NAME, cmsgpack._VERSION, cmsgpack._COPYRIGHT, cmsgpack._DESCRIPTION}
--> ["cmsgpack", "lua-cmsgpack 0.4.0", "Copyright (C) 2012, Salvatore Sanfilippo", "MessagePack C implementation for Lua"]
--[====[ next ]====]
local function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end return {hex(struct.pack('bBhHiIlLT', -1, 255, -2, 65535, -3, 4, -5, 6, 7)), hex(struct.pack('>hil', 1, 2, 3)), hex(struct.pack('<i3>i3', 258, 258)), hex(struct.pack('fd', 1.5, -2.5)), hex(struct.pack('>fd', 1.5, -2.5)), hex(struct.pack('sxc3c0', 'ab', 'cdef', 'gh')), hex(struct.pack('!4bib!bd', 1, 2, 3, 4, 5)), hex(struct.pack('i16', -2)), hex(struct.pack('>I16', 2))}
--> ["fffffefffffffdffffff04000000fbffffffffffffff06000000000000000700000000000000", "0001000000020000000000000003", "020100000102", "0000c03f00000000000004c0", "3fc00000c004000000000000", "616200006364656768", "010000000200000003040000000000000000000000001440", "feffffffffffffff0000000000000000", "00000000000000000000000000000002"]
--[====[ next ]====]
return {struct.unpack('bBhH', '\255\255\254\255\255\255'), select('#', struct.unpack('bBhH', '\255\255\254\255\255\255'))}
--> [-1, 5]
--[====[ next ]====]
local r = {} for i, v in ipairs({struct.unpack('<i3>i3', '\255\255\255\0\1\2')}) do r[i] = v end for i, v in ipairs({struct.unpack('sc2', 'ab\0cd')}) do r[#r + 1] = v end for i, v in ipairs({struct.unpack('Bc0', '\3abcd')}) do r[#r + 1] = v end for i, v in ipairs({struct.unpack('>d<f', struct.pack('>d<f', 2.5, 1.5))}) do r[#r + 1] = tostring(v) end for i, v in ipairs({struct.unpack('lL', struct.pack('lL', -5, 2^60))}) do r[#r + 1] = tostring(v) end for i, v in ipairs({struct.unpack('I', '\1\0\0\0\2\0\0\0', 5)}) do r[#r + 1] = v end return r
--> [-1, 258, 7, "ab", "cd", 6, "abc", 5, "2.5", "1.5", "13", "-5", "1.1529215046068e+18", "17", 2, 9]
--[====[ next ]====]
return {struct.size('bhil'), struct.size('!bhil'), struct.size('!8bdi'), struct.size('c10i3'), struct.size('<>!4'), struct.size('z')}
--> [15, 16, 20, 13, 0, 0]
--[====[ next ]====]
local r = {} for i, f in ipairs({function() return struct.pack('z', 1) end, function() return struct.pack('i33', 1) end, function() return struct.pack('!3i', 1) end, function() return struct.pack('i') end, function() return struct.pack('c5', 'ab') end, function() return struct.unpack('i', 'ab') end, function() return struct.unpack('s', 'ab') end, function() return struct.unpack('c0', 'ab') end, function() return struct.unpack('b', 'ab', 0) end, function() return struct.unpack('b', 'ab', -1) end, function() return struct.unpack('b', 'ab', 5) end, function() return struct.size('s') end, function() return struct.size('c0') end, function() return struct.size('%') end, function() return struct.pack('c99999999999', 'x') end, function() return struct.pack() end, function() return struct.unpack('b') end}) do r[i] = tostring(select(2, pcall(f))) end return r
--> ["user_script:1: bad argument #1 to 'pack' (invalid format option 'z')", "user_script:1: integral size 33 is larger than limit of 32", "user_script:1: alignment 3 is not a power of 2", "user_script:1: bad argument #2 to 'pack' (number expected, got nil)", "user_script:1: bad argument #3 to 'pack' (string too short)", "user_script:1: bad argument #2 to 'unpack' (data string too short)", "user_script:1: unfinished string in data", "user_script:1: format 'c0' needs a previous size", "user_script:1: bad argument #3 to 'unpack' (offset must be 1 or greater)", "user_script:1: bad argument #2 to 'unpack' (data string too short)", "user_script:1: bad argument #2 to 'unpack' (data string too short)", "user_script:1: bad argument #1 to 'size' (option 's' has no fixed size)", "user_script:1: bad argument #1 to 'size' (option 'c0' has no fixed size)", "user_script:1: bad argument #1 to 'size' (invalid format option '%')", "user_script:1: integral size overflow", "user_script:1: bad argument #1 to 'pack' (string expected, got no value)", "user_script:1: bad argument #2 to 'unpack' (string expected, got no value)"]
--[====[ next ]====]
struct.pack('z', 1)
--> -ERR user_script:1: bad argument #1 to 'pack' (invalid format option 'z') script: 46eaaebfb22579135103a76418347c60074887d8, on @user_script:1.
--[====[ next ]====]
redis.call('set', KEYS[1], ARGV[1]) if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('set', KEYS[2], ARGV[2]) end
--> +OK
--[====[ next ]====]
local t = {} for i = 1, 7000 do t[i] = i end return redis.call('rpush', 'l', unpack(t))
--> 7000
--[====[ next ]====]
return {select(-1, 1, 2, 3), select('#'), select(2, 'a', 'b', 'c')}
--> [3, 0, "b", "c"]
--[====[ next ]====]
local function f() return f() .. 'x' end return f()
--> -ERR user_script:1: stack overflow script: 757a041142fd68d5f0a57e1e959d71371ecbfa1e, on @user_script:1.
--[====[ next ]====]
return 'trailing' -- comment
--> "trailing"
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function(keys, args) return {keys[1], keys[2], args[1], args[2], #keys, #args} end)
--> ["k1", "k2", "a1", "a2", 2, 2]
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f', callback=function() return redis.call('echo', 'x') end, flags={'no-writes'}}
--> "x"
--[====[ next ]====]
#!lua name=lib
local function g() error('in a function') end
redis.register_function('f', function() g() end)
--> -ERR user_function:2: in a function script: f, on @user_function:2.
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() return redis.call('nosuch') end)
--> -ERR Unknown Redis command called from script script: f, on @user_function:2.
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() return KEYS end)
--> -ERR user_function:2: Script attempted to access nonexistent global variable 'KEYS' script: f, on @user_function:2.
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() x = 1 end)
--> -ERR user_function:2: Attempt to modify a readonly table script: f, on @user_function:2.
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() _G.x = 1 end)
--> -ERR user_function:2: Attempt to modify a readonly table script: f, on @user_function:2.
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() redis.register_function('g', function() end) end)
--> -ERR user_function:2: attempt to call field 'register_function' (a nil value) script: f, on @user_function:2.
--[====[ next ]====]
#!lua name=lib
local register = redis.register_function
redis.register_function('f', function() register('g', function() end) end)
--> -ERR redis.register_function can only be called on FUNCTION LOAD command script: f, on @user_function:3.
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() return redis.replicate_commands end)
--> nil
--[====[ next ]====]
#!lua name=lib
local r = redis
redis.register_function('f', function() return {type(r.log), rawequal(r, redis), type(redis.call), type(cjson), type(string)} end)
--> ["function", nil, "function", "table", "table"]
--[====[ next ]====]
#!lua name=lib
redis.call('get', 'x')
--> -ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'call'
--[====[ next ]====]
#!lua name=lib
return math.random()
--> -ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'math'
--[====[ next ]====]
#!lua name=lib
x = 1
--> -ERR Error registering functions: ERR user_function:2: Attempt to modify a readonly table
--[====[ next ]====]
#!lua name=lib
redis.x = 1
--> -ERR Error registering functions: ERR user_function:2: Attempt to modify a readonly table
--[====[ next ]====]
#!lua name=lib
local x =
--> -ERR Error compiling function: user_function:3: unexpected symbol near '<eof>'
--[====[ next ]====]
#!lua name=lib
redis.log(1)
--> -ERR Error registering functions: ERR redis.log() requires two arguments or more.
--[====[ next ]====]
#!lua name=lib
return 1
--> -ERR No functions registered
--[====[ next ]====]
#!lua name=lib
redis.register_function()
--> -ERR Error registering functions: ERR wrong number of arguments to redis.register_function
--[====[ next ]====]
#!lua name=lib
redis.register_function('f')
--> -ERR Error registering functions: ERR calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', 1)
--> -ERR Error registering functions: ERR second argument to redis.register_function must be a function
--[====[ next ]====]
#!lua name=lib
redis.register_function({}, function() end)
--> -ERR Error registering functions: ERR first argument to redis.register_function must be a string
--[====[ next ]====]
#!lua name=lib
redis.register_function('a-b', function() end)
--> -ERR Error registering functions: ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long
--[====[ next ]====]
#!lua name=lib
redis.register_function('f', function() end) redis.register_function('f', function() end)
--> -ERR Error registering functions: ERR Function already exists in the library
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f'}
--> -ERR Error registering functions: ERR redis.register_function must get a callback argument
--[====[ next ]====]
#!lua name=lib
redis.register_function{callback=function() end}
--> -ERR Error registering functions: ERR redis.register_function must get a function name argument
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f', callback=1}
--> -ERR Error registering functions: ERR callback argument given to redis.register_function must be a function
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name={}, callback=function() end}
--> -ERR Error registering functions: ERR function_name argument given to redis.register_function must be a string
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f', callback=function() end, description={}}
--> -ERR Error registering functions: ERR description argument given to redis.register_function must be a string
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f', callback=function() end, flags=1}
--> -ERR Error registering functions: ERR flags argument to redis.register_function must be a table representing function flags
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f', callback=function() end, flags={'x'}}
--> -ERR Error registering functions: ERR unknown flag given
--[====[ next ]====]
#!lua name=lib
redis.register_function{function_name='f', callback=function() end, other=1}
--> -ERR Error registering functions: ERR unknown argument given to redis.register_function
--[====[ next ]====]
#!lua name=lib
redis.register_function{[{}]=1}
--> -ERR Error registering functions: ERR named argument key given to redis.register_function is not a string
--[====[ next ]====]
#!lua name=lib
redis.register_function(1, function() end) redis.register_function('f', function() return 'numbers are names' end)
--> "numbers are names"
--[====[ next ]====]
#!lua name=lib
error('while loading')
--> -ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'error'
--[====[ next ]====]
#!lua name=lib
error({err = 'MY loading'})
--> -ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'error'
--[====[ next ]====]
#!lua
return 1
--> -ERR Library name was not given
--[====[ next ]====]
#!js name=lib
return 1
--> -ERR Engine 'js' not found
--[====[ next ]====]
#!lua name=lib name=again
return 1
--> -ERR Invalid metadata value, name argument was given multiple times
--[====[ next ]====]
#!lua name=a.b
return 1
--> -ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long
--[====[ next ]====]
#!lua other=lib
return 1
--> -ERR Invalid metadata value given: other=lib
