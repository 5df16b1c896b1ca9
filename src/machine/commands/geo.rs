//! Places: sorted sets whose scores are positions on the earth.
//!
//! Follows Redis 7.0, its order of checks included.

use super::zset::{self, Conditions, store};
use crate::machine::args::Args;
use crate::machine::float;
use crate::machine::geohash::{Area, Position, Shape};
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::partial_sort::partial_sort;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::Zset;
use bytes::Bytes;
use indexmap::IndexMap;

pub(super) const COMMANDS: &[Spec] = &[
    write(
        "GEOADD",
        "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
        geoadd,
    )
    .since("3.2.0")
    .flags("denyoom")
    .summary("Puts members at positions; how many are new."),
    read("GEODIST", "key member1 member2 [unit]", geodist)
        .since("3.2.0")
        .summary("How far two members are apart."),
    read("GEOHASH", "key [member [member ...]]", geohash)
        .since("3.2.0")
        .summary("The positions of members as geohashes."),
    read("GEOPOS", "key [member [member ...]]", geopos)
        .since("3.2.0")
        .summary("The longitudes and latitudes of members."),
    write(
        "GEORADIUS",
        "key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]",
        georadius,
    )
    .since("3.2.0")
    .flags("denyoom movablekeys")
    .finder(source_and_stored)
    .summary("The members around a position; stores them if asked to."),
    write(
        "GEORADIUSBYMEMBER",
        "key member radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]",
        georadiusbymember,
    )
    .since("3.2.0")
    .flags("denyoom movablekeys")
    .finder(source_and_stored)
    .summary("The members around a member; stores them if asked to."),
    read(
        "GEORADIUSBYMEMBER_RO",
        "key member radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
        georadiusbymember_ro,
    )
    .since("3.2.10")
    .summary("The members around a member."),
    read(
        "GEORADIUS_RO",
        "key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
        georadius_ro,
    )
    .since("3.2.10")
    .summary("The members around a position."),
    read(
        "GEOSEARCH",
        "key <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius unit | BYBOX width height unit> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
        geosearch,
    )
    .since("6.2.0")
    .summary("The members around a position or member, in a circle or a box."),
    write(
        "GEOSEARCHSTORE",
        "destination source <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius unit | BYBOX width height unit> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]",
        geosearchstore,
    )
    .since("6.2.0")
    .flags("denyoom")
    .summary("Stores the members around a position or member; how many they are."),
];

/// The key, and the last that is named behind STORE or STOREDIST.
fn source_and_stored(argv: &[Bytes]) -> Vec<usize> {
    let (mut stored, mut at) = (None, 5);
    while at + 1 < argv.len() {
        let is_store = [b"STORE".as_slice(), b"STOREDIST"]
            .iter()
            .any(|word| argv[at].eq_ignore_ascii_case(word));
        if is_store {
            at += 1;
            stored = Some(at);
        }
        at += 1;
    }
    [1].into_iter().chain(stored).collect()
}

fn geoadd(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let mut conditions = Conditions::default();
    loop {
        if args.keyword("NX") {
            conditions.nx = true;
        } else if args.keyword("XX") {
            conditions.xx = true;
        } else if args.keyword("CH") {
            conditions.changed = true;
        } else {
            break;
        }
    }
    if !args.remaining().is_multiple_of(3) || args.is_empty() || (conditions.nx && conditions.xx) {
        return Err(CommandError::Syntax);
    }
    let mut scored = Vec::new();
    while !args.is_empty() {
        let position = position(args)?;
        scored.push((position.score(), args.bytes()?));
    }
    zset::add(keys, key, conditions, &scored)
}

/// Reads `longitude latitude`.
fn position(args: &mut Args<'_>) -> Result<Position, CommandError> {
    let longitude = float::double(args.bytes()?).ok_or(CommandError::NotAFloat)?;
    let latitude = float::double(args.bytes()?).ok_or(CommandError::NotAFloat)?;
    Position::new(longitude, latitude).ok_or_else(|| {
        let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        CommandError::Other(text.into())
    })
}

/// Reads a unit; its metres.
fn unit(args: &mut Args<'_>) -> Result<f64, CommandError> {
    let unit = args.bytes()?;
    [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)]
        .into_iter()
        .find(|(name, _)| unit.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, metres)| metres)
        .ok_or(CommandError::text(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        ))
}

/// Reads `radius unit`; the shape and the metres of its unit.
fn circle(args: &mut Args<'_>) -> Result<(Shape, f64), CommandError> {
    let radius = float::double(args.bytes()?).ok_or(CommandError::text("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(CommandError::text("ERR radius cannot be negative"));
    }
    Ok((Shape::Circle { radius }, unit(args)?))
}

/// Reads `width height unit`; the shape and the metres of its unit.
fn rectangle(args: &mut Args<'_>) -> Result<(Shape, f64), CommandError> {
    let width = float::double(args.bytes()?).ok_or(CommandError::text("ERR need numeric width"))?;
    let height = float::double(args.bytes()?).ok_or(CommandError::text("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(CommandError::text("ERR height or width cannot be negative"));
    }
    Ok((Shape::Box { width, height }, unit(args)?))
}

fn geodist(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, one, other) = (args.key()?, args.bytes()?, args.bytes()?);
    let metres = match args.remaining() {
        0 => 1.0,
        1 => unit(args)?,
        _ => return Err(CommandError::Syntax),
    };
    let place = |zset: &Zset, member: &[u8]| zset.score(member).map(Position::of_score);
    let places = view
        .zset(key)?
        .and_then(|zset| Some((place(zset, one)?, place(zset, other)?)));
    Ok(places.map_or(Reply::Nil, |(one, other)| {
        Reply::bulk(distance_text(one.distance_m(other) / metres))
    }))
}

/// A distance with four digits after the point, rounded half to even.
fn distance_text(distance: f64) -> String {
    // Half the earth in feet, and this, is far below 2^63.
    let scaled = (distance * 10_000.0).round_ties_even() as u64;
    format!("{}.{:04}", scaled / 10_000, scaled % 10_000)
}

fn geohash(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let hash = |position: Position| Reply::bulk(position.geohash());
    each_position(view, args, hash, Reply::Nil)
}

fn geopos(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    each_position(view, args, coordinates, Reply::NilArray)
}

fn coordinates(position: Position) -> Reply {
    let Position { longitude, latitude } = position;
    Reply::Array(vec![Reply::Coordinate(longitude), Reply::Coordinate(latitude)])
}

fn each_position(
    view: &View<'_>,
    args: &mut Args<'_>,
    show: impl Fn(Position) -> Reply,
    absent: Reply,
) -> Result<Reply, CommandError> {
    let zset = view.zset(args.key()?)?;
    let score = |member: &Bytes| zset.and_then(|zset| zset.score(member));
    let shown = args.rest().iter().map(|member| {
        let position = score(member).map(Position::of_score);
        position.map_or_else(|| absent.clone(), &show)
    });
    Ok(Reply::Array(shown.collect()))
}

fn georadius(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let search = Search::parse(&keys.view(), args, Form::Radius { stores: true })?;
    search.finish(keys)
}

fn georadiusbymember(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let search = Search::parse(&keys.view(), args, Form::RadiusByMember { stores: true })?;
    search.finish(keys)
}

fn georadius_ro(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Search::parse(view, args, Form::Radius { stores: false })?.answer())
}

fn georadiusbymember_ro(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Search::parse(view, args, Form::RadiusByMember { stores: false })?.answer())
}

fn geosearch(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Search::parse(view, args, Form::Search { stores: false })?.answer())
}

fn geosearchstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let search = Search::parse(&keys.view(), args, Form::Search { stores: true })?;
    search.finish(keys)
}

/// Which command searches, and whether it may store what it finds.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Radius { stores: bool },
    RadiusByMember { stores: bool },
    Search { stores: bool },
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    None,
    Ascending,
    Descending,
}

/// A member that was found.
struct Place {
    member: Bytes,
    score: f64,
    position: Position,
    /// How far it is from the centre, in metres.
    distance_m: f64,
}

/// What is searched, and what of it is asked for.
struct Search {
    form: Form,
    /// None where the key is absent, of a member of which nothing is known.
    center: Option<Position>,
    shape: Option<(Shape, f64)>,
    /// FROMMEMBER was given, or FROMLONLAT.
    from: Option<From>,
    with_distance: bool,
    with_hash: bool,
    with_coordinates: bool,
    sort: Sort,
    /// 0: all.
    count: usize,
    /// Any so many will do.
    any: bool,
    /// Where to store what is found, and whether distances become the scores.
    store: Option<Bytes>,
    store_distances: bool,
    /// What was found, as it is answered.
    found: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq)]
enum From {
    Member,
    Position,
}

impl Search {
    /// Reads the arguments and searches.
    fn parse(view: &View<'_>, args: &mut Args<'_>, form: Form) -> Result<Self, CommandError> {
        let store = match form {
            Form::Search { stores: true } => Some(args.key()?.clone()),
            _ => None,
        };
        let zset = view.zset(args.key()?)?;
        let mut search = Self {
            form,
            center: None,
            shape: None,
            from: None,
            with_distance: false,
            with_hash: false,
            with_coordinates: false,
            sort: Sort::None,
            count: 0,
            any: false,
            store,
            store_distances: false,
            found: Vec::new(),
        };
        match form {
            Form::Radius { .. } => {
                search.center = Some(position(args)?);
                search.shape = Some(circle(args)?);
            }
            // Of an absent key nothing is known, so nothing of it is read.
            Form::RadiusByMember { .. } if zset.is_none() => drop(args.many(3)?),
            Form::RadiusByMember { .. } => {
                search.center = position_of(zset, args.bytes()?)?;
                search.shape = Some(circle(args)?);
            }
            Form::Search { .. } => {}
        }
        while !args.is_empty() {
            search.parse_option(zset, args)?;
        }
        search.check(args.argv())?;
        if let (Some(zset), Some(center), Some((shape, unit_m))) = (zset, search.center, search.shape) {
            search.run(
                zset,
                &Area {
                    center,
                    shape,
                    unit_m,
                },
            );
        }
        Ok(search)
    }

    fn parse_option(&mut self, zset: Option<&Zset>, args: &mut Args<'_>) -> Result<(), CommandError> {
        let searches = matches!(self.form, Form::Search { .. });
        let stores_by_option = matches!(
            self.form,
            Form::Radius { stores: true } | Form::RadiusByMember { stores: true }
        );
        let follow = |args: &Args<'_>, count: usize| args.remaining() > count;
        if args.keyword("WITHDIST") {
            self.with_distance = true;
        } else if args.keyword("WITHHASH") {
            self.with_hash = true;
        } else if args.keyword("WITHCOORD") {
            self.with_coordinates = true;
        } else if args.keyword("ANY") {
            self.any = true;
        } else if args.keyword("ASC") {
            self.sort = Sort::Ascending;
        } else if args.keyword("DESC") {
            self.sort = Sort::Descending;
        } else if follow(args, 1) && args.keyword("COUNT") {
            let count = usize::try_from(args.integer()?).ok().filter(|count| *count > 0);
            self.count = count.ok_or(CommandError::text("ERR COUNT must be > 0"))?;
        } else if stores_by_option && follow(args, 1) && args.keyword("STORE") {
            (self.store, self.store_distances) = (Some(args.key()?.clone()), false);
        } else if stores_by_option && follow(args, 1) && args.keyword("STOREDIST") {
            (self.store, self.store_distances) = (Some(args.key()?.clone()), true);
        } else if self.form == (Form::Search { stores: true }) && args.keyword("STOREDIST") {
            self.store_distances = true;
        } else if searches
            && self.from != Some(From::Position)
            && follow(args, 1)
            && args.keyword("FROMMEMBER")
        {
            self.center = position_of(zset, args.bytes()?)?;
            self.from = Some(From::Member);
        } else if searches && self.from != Some(From::Member) && follow(args, 2) && args.keyword("FROMLONLAT")
        {
            self.center = Some(position(args)?);
            self.from = Some(From::Position);
        } else if searches
            && !matches!(self.shape, Some((Shape::Box { .. }, _)))
            && follow(args, 2)
            && args.keyword("BYRADIUS")
        {
            self.shape = Some(circle(args)?);
        } else if searches
            && !matches!(self.shape, Some((Shape::Circle { .. }, _)))
            && follow(args, 3)
            && args.keyword("BYBOX")
        {
            self.shape = Some(rectangle(args)?);
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }

    /// What the options must and must not be together.
    fn check(&self, argv: &[Bytes]) -> Result<(), CommandError> {
        let searches = matches!(self.form, Form::Search { .. });
        let refused = |text: String| Err(CommandError::Other(text.into()));
        let name = || {
            argv.first()
                .map(|name| String::from_utf8_lossy(name))
                .unwrap_or_default()
        };
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_coordinates) {
            let who = if searches {
                "GEOSEARCHSTORE"
            } else {
                "STORE option in GEORADIUS"
            };
            return refused(format!(
                "ERR {who} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            ));
        }
        if searches && self.from.is_none() {
            return refused(format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {}",
                name()
            ));
        }
        if searches && self.shape.is_none() {
            return refused(format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {}",
                name()
            ));
        }
        if self.any && self.count == 0 {
            return Err(CommandError::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// Finds what is in the area, in the order and number asked for.
    fn run(&mut self, zset: &Zset, area: &Area) {
        let limit = if self.count > 0 { self.count } else { usize::MAX };
        let enough = if self.any { limit } else { usize::MAX };
        let places = area.scores().into_iter().flat_map(|scores| {
            let start = zset.rank_where(|score, _| score < scores.start);
            let end = zset.rank_where(|score, _| score < scores.end);
            zset.range(start..end.max(start))
        });
        let inside = places.filter_map(|(member, score)| {
            let position = Position::of_score(score);
            Some(Place {
                member: member.clone(),
                score,
                position,
                distance_m: area.distance_m(position)?,
            })
        });
        self.found = inside.take(enough).collect();
        // The nearest so many are meant, where nothing else is said.
        let sort = match self.sort {
            Sort::None if self.count > 0 && !self.any => Sort::Ascending,
            sort => sort,
        };
        let compare = |one: &Place, other: &Place| {
            let order = one.distance_m.total_cmp(&other.distance_m);
            if sort == Sort::Descending {
                order.reverse()
            } else {
                order
            }
        };
        if sort != Sort::None && limit < self.found.len() {
            partial_sort(&mut self.found, &(0..limit), &compare);
        } else if sort != Sort::None {
            self.found.sort_by(compare);
        }
        self.found.truncate(limit);
    }

    /// Metres of the unit in which distances are told.
    fn unit_m(&self) -> f64 {
        self.shape.map_or(1.0, |(_, unit_m)| unit_m)
    }

    fn finish(self, keys: &mut Keyspace<'_>) -> Result<Reply, CommandError> {
        let Some(destination) = &self.store else {
            return Ok(self.answer());
        };
        let scores: IndexMap<Bytes, f64> = self
            .found
            .iter()
            .map(|place| {
                let distance = place.distance_m / self.unit_m();
                let score = if self.store_distances {
                    distance
                } else {
                    place.score
                };
                (place.member.clone(), score)
            })
            .collect();
        let event = match self.form {
            Form::Search { .. } => "geosearchstore",
            Form::Radius { .. } | Form::RadiusByMember { .. } => "georadiusstore",
        };
        let zset = Zset::of(scores, keys.settings());
        Ok(store(keys, destination, zset, event))
    }

    fn answer(&self) -> Reply {
        let details = self.with_distance || self.with_hash || self.with_coordinates;
        let one = |place: &Place| {
            let member = Reply::Bulk(place.member.clone());
            if !details {
                return member;
            }
            let distance = || Reply::bulk(distance_text(place.distance_m / self.unit_m()));
            // The score of a position is a whole number; what is not is cut.
            let hash = || Reply::Integer(place.score as i64);
            let parts = [
                Some(member),
                self.with_distance.then(distance),
                self.with_hash.then(hash),
                self.with_coordinates.then(|| coordinates(place.position)),
            ];
            Reply::Array(parts.into_iter().flatten().collect())
        };
        Reply::Array(self.found.iter().map(one).collect())
    }
}

/// Where a member is; none where there is no sorted set.
fn position_of(zset: Option<&Zset>, member: &[u8]) -> Result<Option<Position>, CommandError> {
    let Some(zset) = zset else { return Ok(None) };
    let score = zset
        .score(member)
        .ok_or(CommandError::text("ERR could not decode requested zset member"))?;
    Ok(Some(Position::of_score(score)))
}

#[cfg(test)]
mod tests {
    use super::distance_text;

    #[test]
    fn distances_have_four_digits_after_the_point() {
        for (distance, text) in [
            (0.0, "0.0000"),
            (0.00001, "0.0000"),
            (0.775, "0.7750"),
            (166_274.151_569_600_4, "166274.1516"),
            (12.00005, "12.0000"),
        ] {
            assert_eq!(distance_text(distance), text);
        }
    }
}
