//! Places on the earth, in sorted sets.

use super::grammar::{Kind, Pool};

pub const KIND: Kind = Kind {
    name: "geo",
    keys: &["g1", "g2"],
    shapes: &[
        "4 GEOADD key ( lon lat place )+",
        "2 GEOADD key ( lon lat serial ){20}",
        "GEOADD key ( NX | XX | CH | nonsense )* lon lat place",
        "2 GEODIST key place place [ unit ]",
        "GEODIST key place place nonsense",
        "GEOHASH key place*",
        "GEOPOS key place*",
        "3 sort GEOSEARCH key ( FROMMEMBER place | FROMLONLAT lon lat ) ( BYRADIUS radius unit | BYBOX radius radius unit ) [ WITHHASH ]",
        "3 GEOSEARCH key ( FROMMEMBER place | FROMLONLAT lon lat ) ( BYRADIUS radius unit | BYBOX radius radius unit ) ( ASC | DESC ) \
         [ COUNT count ] [ WITHCOORD ] [ WITHDIST ] [ WITHHASH ]",
        "form GEOSEARCH key FROMMEMBER place BYRADIUS radius unit COUNT count [ WITHDIST ]",
        "form GEOSEARCH key FROMLONLAT lon lat BYRADIUS radius unit COUNT count ANY",
        "GEOSEARCH key ( FROMMEMBER place | FROMLONLAT lon lat | BYRADIUS radius unit | BYBOX radius radius unit | ASC | COUNT count | ANY | nonsense )+",
        "2 GEOSEARCHSTORE key key ( FROMMEMBER place | FROMLONLAT lon lat ) ( BYRADIUS radius unit | BYBOX radius radius unit )",
        // Without scores: their last digit may be another one than that of the C library.
        "GEOSEARCHSTORE distances key FROMMEMBER place BYRADIUS radius unit STOREDIST",
        "ZCARD distances",
        "GEOSEARCHSTORE key key FROMLONLAT lon lat BYRADIUS radius unit COUNT count ASC [ WITHDIST ]",
        "GEORADIUS key lon lat radius unit ASC [ WITHCOORD ] [ WITHDIST ] [ WITHHASH ]",
        "GEORADIUS key lon lat radius unit ( STORE key | STOREDIST distances | WITHDIST | nonsense )+",
        "GEORADIUSBYMEMBER key place radius unit DESC [ WITHCOORD ] [ WITHDIST ]",
        "GEORADIUSBYMEMBER key place radius unit ( STORE key | STOREDIST distances )",
        "GEORADIUS_RO key lon lat radius unit ASC [ WITHDIST ]",
        "GEORADIUS_RO key lon lat radius unit STORE key",
        "GEORADIUSBYMEMBER_RO key place radius unit ASC [ WITHDIST ]",
        "ZRANGE key 0 -1 WITHSCORES",
        "ZREM key place+",
    ],
    words,
};

fn words(word: &str) -> Option<Pool> {
    let (usual, odd): (&[&str], &[&str]) = match word {
        "place" => (
            &["Palermo", "Catania", "rome", "pole", "date-line", "m1", "m2"],
            &["", "nowhere"],
        ),
        "distances" => (&["d1"], &[]),
        "lon" => (
            &[
                "13.361389",
                "15.087269",
                "12.5",
                "0",
                "-0.1",
                "179.99",
                "-179.99",
                "100.25",
                "180",
                "-180",
            ],
            &["181", "-180.1", "x", "nan", "", "inf"],
        ),
        "lat" => (
            &[
                "38.115556",
                "37.502669",
                "41.9",
                "0",
                "-0.1",
                "85",
                "-85",
                "66.5",
                "85.05112878",
            ],
            &["86", "-85.06", "x", "nan", "", "90"],
        ),
        "radius" => (
            &["0", "1", "10", "200", "500.5", "5000"],
            &["-1", "x", "nan", "inf", "1e300", ""],
        ),
        "unit" => (&["m", "km", "KM", "ft", "mi"], &["x", ""]),
        _ => return None,
    };
    Some(Pool { usual, odd })
}
