//! Positions on the earth as whole numbers of 52 bits, so that what is near has numbers that are near; and distances.
//!
//! The same arithmetic as Redis', operation by operation, so that scores, boxes and distances are the same. Sine, cosine and arc sine come from
//! the crate `libm` and not from the platform: what is stored of a search is the same on every node.

use std::ops::Range;

/// Degrees of longitude and latitude that can be told. The poles cannot.
const LONGITUDES: (f64, f64) = (-180.0, 180.0);
const LATITUDES: (f64, f64) = (-85.05112878, 85.05112878);

/// Latitudes as everybody else's geohashes count them.
const ALL_LATITUDES: (f64, f64) = (-90.0, 90.0);

/// Bits of each coordinate in a score.
const STEPS: u8 = 26;

const EARTH_RADIUS_M: f64 = 6_372_797.560856;

/// Half the equator in the projection of maps: what a search can be wide.
const MERCATOR_MAX_M: f64 = 20_037_726.37;

const DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) longitude: f64,
    pub(super) latitude: f64,
}

impl Position {
    /// A place that can be told; none for others.
    pub(super) fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let within = |degrees: f64, (min, max): (f64, f64)| (min..=max).contains(&degrees);
        (within(longitude, LONGITUDES) && within(latitude, LATITUDES)).then_some(Self { longitude, latitude })
    }

    /// Its score in a sorted set.
    pub(super) fn score(self) -> f64 {
        Cell::of(self, LATITUDES, STEPS).bits as f64
    }

    /// The place that a score stands for: the middle of its cell.
    pub(super) fn of_score(score: f64) -> Self {
        let cell = Cell {
            bits: score_bits(score),
            steps: STEPS,
        };
        let area = cell.area();
        let middle =
            |(min, max): (f64, f64), (least, most): (f64, f64)| ((min + max) / 2.0).min(most).max(least);
        Self {
            longitude: middle(area.longitude, LONGITUDES),
            latitude: middle(area.latitude, LATITUDES),
        }
    }

    /// Its geohash, as everybody writes them. The last of the eleven digits is always 0: a score has no bits for it.
    pub(super) fn geohash(self) -> String {
        let bits = Cell::of(self, ALL_LATITUDES, STEPS).bits;
        let digit = |index: u32| char::from(DIGITS[(bits >> (52 - (index + 1) * 5)) as usize & 0x1f]);
        (0..10).map(digit).chain(['0']).collect()
    }

    /// How far it is to another place, in metres along a great circle. Always a number: where rounding makes the other end of the earth a little
    /// farther than that (Redis answers then what is no number), it is that.
    pub(super) fn distance_m(self, other: Self) -> f64 {
        let half_sine = |from: f64, to: f64| libm::sin((to - from) / 2.0);
        let across = half_sine(radians(self.longitude), radians(other.longitude));
        if across == 0.0 {
            return latitude_distance_m(self.latitude, other.latitude);
        }
        let (from, to) = (radians(self.latitude), radians(other.latitude));
        let along = half_sine(from, to);
        let haversine = along * along + libm::cos(from) * libm::cos(to) * across * across;
        2.0 * EARTH_RADIUS_M * libm::asin(haversine.sqrt().min(1.0))
    }
}

fn radians(degrees: f64) -> f64 {
    degrees * (std::f64::consts::PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}

fn latitude_distance_m(from: f64, to: f64) -> f64 {
    EARTH_RADIUS_M * (radians(to) - radians(from)).abs()
}

/// A score as bits, also where no position has it: as the processors that Redis runs on mostly do it.
fn score_bits(score: f64) -> u64 {
    const TOP_BIT: f64 = 9_223_372_036_854_775_808.0;
    if score < TOP_BIT {
        (score as i64).cast_unsigned()
    } else if score < 2.0 * TOP_BIT {
        ((score - TOP_BIT) as i64).cast_unsigned() ^ (1 << 63)
    } else {
        0
    }
}

/// Which half, of which half … a place is in, so many times, by longitude and latitude in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    bits: u64,
    /// Bits of each coordinate.
    steps: u8,
}

/// What a cell covers, least and most degrees.
struct CellArea {
    longitude: (f64, f64),
    latitude: (f64, f64),
}

/// Bits of latitudes in a cell; those of longitudes are the others.
const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;

impl Cell {
    fn of(position: Position, latitudes: (f64, f64), steps: u8) -> Self {
        let scale = (1u64 << steps) as f64;
        // How far from one end to the other, as a fraction of 2^steps; its fraction is dropped.
        let offset = |degrees: f64, (min, max): (f64, f64)| ((degrees - min) / (max - min) * scale) as u32;
        let latitude = offset(position.latitude, latitudes);
        let longitude = offset(position.longitude, LONGITUDES);
        Self {
            bits: spread(latitude) | (spread(longitude) << 1),
            steps,
        }
    }

    fn area(self) -> CellArea {
        let scale = (1u64 << self.steps) as f64;
        let span = |offset: u32, (min, max): (f64, f64)| {
            let edge = |offset: u32| min + (f64::from(offset) / scale) * (max - min);
            (edge(offset), edge(offset.wrapping_add(1)))
        };
        CellArea {
            longitude: span(gathered(self.bits >> 1), LONGITUDES),
            latitude: span(gathered(self.bits), LATITUDES),
        }
    }

    /// The scores of what is in it.
    fn scores(self) -> Range<f64> {
        let aligned = |bits: u64| (bits << (52 - 2 * self.steps)) as f64;
        aligned(self.bits)..aligned(self.bits + 1)
    }

    /// The cell so many cells to the east (1, 0, -1) and north; around the earth where it ends.
    fn neighbour(self, east: i8, north: i8) -> Self {
        Self {
            bits: self.moved(!LATITUDE_BITS, east) | self.moved(LATITUDE_BITS, north),
            ..self
        }
    }

    /// The bits of one coordinate (those of `mask`), one more or less.
    fn moved(self, mask: u64, by: i8) -> u64 {
        let unused = 64 - u32::from(self.steps) * 2;
        let (own, others) = (self.bits & mask, !mask >> unused);
        // The other coordinate's bits are filled so that a carry or a borrow passes through them.
        let moved = match by {
            0 => return own,
            1.. => own.wrapping_add(others + 1),
            _ => (own | others).wrapping_sub(others + 1),
        };
        moved & (mask >> unused)
    }
}

/// The bits of a number, each followed by a 0.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, LATITUDE_BITS),
    ] {
        bits = (bits | (bits << shift)) & mask;
    }
    bits
}

/// Every second bit of a number, the lowest first.
fn gathered(bits: u64) -> u32 {
    let mut bits = bits & LATITUDE_BITS;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | (bits >> shift)) & mask;
    }
    u32::try_from(bits).expect("masked to 32 bits")
}

/// What is searched around a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// What is at most so far away.
    Circle { radius: f64 },
    /// What is at most half of these away to the sides, and up and down.
    Box { width: f64, height: f64 },
}

/// Where to search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) center: Position,
    pub(super) shape: Shape,
    /// Metres of the unit in which the shape is given.
    pub(super) unit_m: f64,
}

impl Area {
    /// How far a place is from the centre, in metres, if it is in the area.
    pub(super) fn distance_m(&self, position: Position) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => {
                let distance = self.center.distance_m(position);
                (distance <= radius * self.unit_m).then_some(distance)
            }
            Shape::Box { width, height } => {
                let aside = Position {
                    longitude: self.center.longitude,
                    ..position
                };
                let too_high =
                    latitude_distance_m(position.latitude, self.center.latitude) > height * self.unit_m / 2.0;
                if too_high || position.distance_m(aside) > width * self.unit_m / 2.0 {
                    return None;
                }
                Some(self.center.distance_m(position))
            }
        }
    }

    /// Ranges of scores that hold every place in the area, in the order in which Redis looks at them: the cell of the centre, then those around.
    pub(super) fn scores(&self) -> Vec<Range<f64>> {
        let bounds = self.bounds();
        let mut steps = self.steps();
        let mut cell = Cell::of(self.center, LATITUDES, steps);
        let covered = |cell: Cell| {
            let [north, south] = [1, -1].map(|north| cell.neighbour(0, north).area().latitude);
            let [east, west] = [1, -1].map(|east| cell.neighbour(east, 0).area().longitude);
            !(north.1 < bounds.latitude.1
                || south.0 > bounds.latitude.0
                || east.1 < bounds.longitude.1
                || west.0 > bounds.longitude.0)
        };
        if steps > 1 && !covered(cell) {
            steps -= 1;
            cell = Cell::of(self.center, LATITUDES, steps);
        }
        let area = cell.area();
        let is_useless = |east: i8, north: i8| {
            steps >= 2
                && ((north < 0 && area.latitude.0 < bounds.latitude.0)
                    || (north > 0 && area.latitude.1 > bounds.latitude.1)
                    || (east < 0 && area.longitude.0 < bounds.longitude.0)
                    || (east > 0 && area.longitude.1 > bounds.longitude.1))
        };
        let (mut ranges, mut last) = (vec![cell.scores()], None);
        for (east, north) in [
            (0, 1),
            (0, -1),
            (1, 0),
            (-1, 0),
            (1, 1),
            (-1, 1),
            (1, -1),
            (-1, -1),
        ] {
            let neighbour = cell.neighbour(east, north);
            // Where cells are huge, those around may be the same one.
            if !is_useless(east, north) && last != Some(neighbour) {
                ranges.push(neighbour.scores());
                last = Some(neighbour);
            }
        }
        ranges
    }

    /// The degrees that the area reaches to.
    fn bounds(&self) -> CellArea {
        let (width, height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let (width, height) = (self.unit_m * width, self.unit_m * height);
        let Position { longitude, latitude } = self.center;
        let up = degrees(height / EARTH_RADIUS_M);
        // Circles of latitude are shorter near the poles: the side towards the nearer pole counts.
        let narrow = if latitude < 0.0 {
            latitude - up
        } else {
            latitude + up
        };
        let aside = degrees(width / EARTH_RADIUS_M / libm::cos(radians(narrow)));
        CellArea {
            longitude: (longitude - aside, longitude + aside),
            latitude: (latitude - up, latitude + up),
        }
    }

    /// How small cells can be so that nine of them mostly hold the area.
    fn steps(&self) -> u8 {
        let reach = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        let mut reach_m = reach * self.unit_m;
        if reach_m == 0.0 {
            return STEPS;
        }
        let mut steps: i32 = 1;
        while reach_m < MERCATOR_MAX_M {
            reach_m *= 2.0;
            steps += 1;
        }
        steps -= 2;
        // Cells are narrow near the poles.
        let latitude = self.center.latitude.abs();
        steps -= i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        u8::try_from(steps.clamp(1, i32::from(STEPS))).expect("1 to 26")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_stands_for_a_place_near_the_one_given() {
        for (longitude, latitude) in [(13.361389, 38.115556), (-0.127, 51.5), (179.9, -85.0), (0.0, 0.0)] {
            let position = Position::new(longitude, latitude).expect("on the map");
            let found = Position::of_score(position.score());
            assert!(position.distance_m(found) < 0.6, "{found:?}");
        }
        assert_eq!(Position::new(180.1, 0.0), None);
        assert_eq!(Position::new(0.0, -85.1), None);
        assert_eq!(Position::new(f64::NAN, 0.0), None);
    }

    #[test]
    fn bits_are_spread_and_gathered() {
        for number in [0, 1, 2, 0x0200_0000, 0x03ff_ffff, u32::MAX, 0xdead_beef] {
            assert_eq!(gathered(spread(number)), number);
            assert_eq!(spread(number) & !LATITUDE_BITS, 0);
        }
    }

    #[test]
    fn neighbours_go_round_the_earth_and_back() {
        let cell = Cell::of(Position::new(179.99, 10.0).expect("on the map"), LATITUDES, 10);
        let east = cell.neighbour(1, 0);
        assert_eq!(east.area().longitude.0, -180.0);
        assert_eq!(east.area().latitude, cell.area().latitude);
        for (right, up) in [(1, 1), (0, 1), (1, -1)] {
            assert_eq!(cell.neighbour(right, up).neighbour(-right, -up), cell);
        }
    }
}
