//! redis-rs with its default settings, in RESP2 and in RESP3. Called with `HOST:PORT [HOST:PORT ...]`; several addresses are members of one
//! Plenary cluster.

use redis::{
    Commands, Connection, ConnectionLike, ExistenceCheck, RedisResult, SetExpiry, SetOptions, Value,
};
use std::collections::{HashMap, HashSet};

const DB: u8 = 12;

fn main() {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    for protocol in ["", "?protocol=resp3"] {
        let mut r = connect(&addresses[0], protocol);
        let () = redis::cmd("FLUSHDB").query(&mut r).unwrap();
        strings(&mut r).unwrap();
        hashes(&mut r).unwrap();
        scanning(&mut r).unwrap();
        refusals(&mut r);
        let () = redis::cmd("FLUSHDB").query(&mut r).unwrap();
    }
    cluster(&addresses).unwrap();
    println!("redis-rs: ok");
}

fn connect(address: &str, protocol: &str) -> Connection {
    let client = redis::Client::open(format!("redis://{address}/{DB}{protocol}")).unwrap();
    let mut connection = client.get_connection().unwrap();
    assert!(connection.check_connection());
    connection
}

fn strings(r: &mut Connection) -> RedisResult<()> {
    let binary: Vec<u8> = (0..=255).collect();
    let () = r.set(&binary, &binary)?;
    assert_eq!(r.get::<_, Vec<u8>>(&binary)?, binary);
    let () = r.set("k", "v")?;
    let options = |check| SetOptions::default().conditional_set(check);
    assert_eq!(
        r.set_options::<_, _, Option<String>>("k", "w", options(ExistenceCheck::NX))?,
        None
    );
    let with_life = options(ExistenceCheck::XX).with_expiration(SetExpiry::EX(100));
    assert_eq!(
        r.set_options::<_, _, Option<String>>("k", "w", with_life)?
            .as_deref(),
        Some("OK")
    );
    assert!((98..=100).contains(&r.ttl::<_, i64>("k")?));
    let keep = SetOptions::default()
        .with_expiration(SetExpiry::KEEPTTL)
        .get(true);
    assert_eq!(r.set_options::<_, _, String>("k", "x", keep)?, "w");
    assert!((98..=100).contains(&r.ttl::<_, i64>("k")?));
    assert!(r.persist::<_, bool>("k")?);
    assert_eq!(r.ttl::<_, i64>("k")?, -1);
    assert!(r.expire::<_, bool>("k", 50)?);
    assert!(!r.expire::<_, bool>("none", 50)?);
    assert_eq!(r.get_del::<_, Option<String>>("k")?.as_deref(), Some("x"));
    assert_eq!(r.get::<_, Option<String>>("k")?, None);
    assert_eq!(r.incr::<_, _, i64>("n", 41)?, 41);
    assert_eq!(r.incr::<_, _, f64>("n", 0.5)?, 41.5);
    let () = r.mset(&[("a", 1), ("b", 2)])?;
    assert_eq!(
        r.mget::<_, Vec<Option<i64>>>(&["a", "none", "b"])?,
        [Some(1), None, Some(2)]
    );
    assert_eq!(r.append::<_, _, usize>("a", "00")?, 3);
    assert_eq!(r.del::<_, usize>(&["a", "b", "none"])?, 2);
    Ok(())
}

fn hashes(r: &mut Connection) -> RedisResult<()> {
    let fields: HashMap<String, i64> = (0..1500).map(|i| (format!("field:{i}"), i)).collect();
    let pairs: Vec<_> = fields.iter().collect();
    let () = r.hset_multiple("h", &pairs)?;
    assert_eq!(r.hgetall::<_, HashMap<String, i64>>("h")?, fields);
    assert_eq!(
        r.hscan::<_, (String, i64)>("h")?
            .collect::<RedisResult<HashMap<_, _>>>()?,
        fields
    );
    assert_eq!(r.hincr::<_, _, _, i64>("h", "field:7", 3)?, 10);
    assert_eq!(r.hget::<_, _, Option<i64>>("h", "none")?, None);
    assert_eq!(r.hlen::<_, usize>("h")?, 1500);
    assert!(r.hexists::<_, _, bool>("h", "field:0")?);
    assert_eq!(r.hdel::<_, _, usize>("h", &["field:0", "none"])?, 1);
    Ok(())
}

fn scanning(r: &mut Connection) -> RedisResult<()> {
    let mut pipe = redis::pipe();
    for i in 0..1000 {
        pipe.set(format!("key:{i}"), i).ignore();
    }
    pipe.get("key:999").incr("counter", 1);
    assert_eq!(pipe.query::<(i64, i64)>(r)?, (999, 1));
    let found = r
        .scan_match::<_, String>("key:*")?
        .collect::<RedisResult<HashSet<_>>>()?;
    assert_eq!(found, (0..1000).map(|i| format!("key:{i}")).collect());
    Ok(())
}

fn refusals(r: &mut Connection) {
    let wrong = r.hget::<_, _, Value>("counter", "f").unwrap_err();
    assert_eq!(wrong.code(), Some("WRONGTYPE"), "{wrong}");
    let unknown = redis::cmd("NONSENSE").query::<Value>(r).unwrap_err();
    assert!(unknown.to_string().contains("unknown command"), "{unknown}");
    assert!(r.is_open(), "a refusal does not end the connection");
}

/// A write on one member, read on the others at least as new, with the token that says how new.
fn cluster(addresses: &[String]) -> RedisResult<()> {
    let mut writer = connect(&addresses[0], "");
    for address in &addresses[1..] {
        let mut reader = connect(address, "");
        for turn in 0..20 {
            let () = writer.set("across", turn)?;
            let token: u64 = redis::cmd("PLENARY").arg("TOKEN").query(&mut writer)?;
            let () = redis::cmd("PLENARY")
                .arg("WAITFOR")
                .arg(token)
                .query(&mut reader)?;
            assert_eq!(reader.get::<_, i64>("across")?, turn);
        }
    }
    Ok(())
}
