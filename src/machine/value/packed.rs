//! Small hashes in one run of memory: pairs of texts, one behind the other, found by walking along them. A pair costs two bytes beside its content,
//! where a table with an allocation for each text would cost some two hundred. What the runs of sessions are written with as well.
//!
//! ```text
//! pair = length of the name, name, length of the value, value        a length: 7 bits a byte, the lowest first, all but the last with the highest bit set
//! ```
//!
//! What is read of it shares the run, and holds it as long as it is kept. A change copies the run, to one of just the length it needs.

use bytes::Bytes;
use std::ops::Range;

/// Pairs of texts in an order of the owner's choice.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    run: Bytes,
    pairs: usize,
}

/// Where a pair stands in the run.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pair: Range<usize>,
    value: Range<usize>,
}

impl Packed {
    /// So many pairs that stand in a run already; none where two of them have one name.
    pub(super) fn of(run: &[u8], pairs: usize) -> Option<Self> {
        let names = Pairs(Walk::new(run)).map(|(name, _)| name);
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        let twins = names.windows(2).any(|names| names[0] == names[1]);
        (!twins).then(|| Self {
            run: Bytes::copy_from_slice(run),
            pairs,
        })
    }

    /// How many pairs.
    pub(super) fn len(&self) -> usize {
        self.pairs
    }

    /// Bytes of the run.
    pub(super) fn bytes(&self) -> usize {
        self.run.len()
    }

    /// All pairs, in order.
    pub(super) fn iter(&self) -> Pairs<'_> {
        Pairs(Walk::new(&self.run))
    }

    /// The pair of this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<Place> {
        self.iter()
            .places()
            .find(|(other, _)| *other == name)
            .map(|(_, place)| place)
    }

    /// The value that stands at a place.
    pub(super) fn value(&self, place: &Place) -> &[u8] {
        &self.run[place.value.clone()]
    }

    /// The same, to be kept.
    pub(super) fn shared(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.iter()
            .map(|(name, value)| (self.share(name), self.share(value)))
    }

    /// A name or a value that was read here, to be kept: it shares the run.
    pub(super) fn share(&self, text: &[u8]) -> Bytes {
        self.run.slice_ref(text)
    }

    /// Puts a pair behind all others. There must be none of its name.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        let end = self.run.len();
        self.replace(end..end, Some((name, value)));
        self.pairs += 1;
    }

    /// Gives the pair at a place another value.
    pub(super) fn set(&mut self, place: &Place, value: &[u8]) {
        let old = std::mem::take(&mut self.run);
        if value.len() == place.value.len() {
            // Nothing moves. Copied only where somebody still reads the old run.
            let mut run = old
                .try_into_mut()
                .unwrap_or_else(|shared| bytes::BytesMut::from(&shared[..]));
            run[place.value.clone()].copy_from_slice(value);
            self.run = run.freeze();
            return;
        }
        self.run = old;
        let name = Walk::new(&self.run[place.pair.clone()]).text();
        let name = name.map(|name| self.share(name)).unwrap_or_default();
        self.replace(place.pair.clone(), Some((&name, value)));
    }

    /// Takes the pair at a place away.
    pub(super) fn remove(&mut self, place: &Place) {
        self.replace(place.pair.clone(), None);
        self.pairs -= 1;
    }

    /// Takes the pair at a place away, and puts the last one there.
    pub(super) fn swap_remove(&mut self, place: &Place) {
        let last = self.iter().places().last();
        let last = last.map_or(place.pair.clone(), |(_, last)| last.pair);
        if last == place.pair {
            return self.remove(place);
        }
        let parts = [
            &self.run[..place.pair.start],
            &self.run[last.clone()],
            &self.run[place.pair.end..last.start],
        ];
        self.run = parts.concat().into();
        self.pairs -= 1;
    }

    fn replace(&mut self, range: Range<usize>, pair: Option<(&[u8], &[u8])>) {
        let new = pair.map_or(0, |(name, value)| text_bytes(name) + text_bytes(value));
        let mut run = Vec::with_capacity(self.run.len() - range.len() + new);
        run.extend_from_slice(&self.run[..range.start]);
        for text in pair.into_iter().flat_map(|(name, value)| [name, value]) {
            put_text(text, &mut run);
        }
        run.extend_from_slice(&self.run[range.end..]);
        self.run = run.into();
    }
}

/// A walk along the pairs.
#[derive(Clone, Debug)]
pub(super) struct Pairs<'a>(Walk<'a>);

impl<'a> Pairs<'a> {
    /// The same walk, with where each pair stands.
    fn places(mut self) -> impl Iterator<Item = (&'a [u8], Place)> {
        std::iter::from_fn(move || {
            let start = self.0.at;
            let (name, value) = self.next()?;
            let value = self.0.at - value.len()..self.0.at;
            let pair = start..self.0.at;
            Some((name, Place { pair, value }))
        })
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.text()?, self.0.text()?))
    }
}

/// A walk along a run of texts and numbers.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    run: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// From the run's begin.
    pub(super) fn new(run: &'a [u8]) -> Self {
        Self { run, at: 0 }
    }

    /// The number that follows; none at the end.
    pub(super) fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = *self.run.get(self.at)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
    }

    /// The text that follows; none at the end.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = &self.run[self.at..self.at + length];
        self.at += length;
        Some(text)
    }
}

/// Bytes of a number in a run.
pub(super) fn number_bytes(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Bytes of a text in a run, its length among them.
pub(super) fn text_bytes(text: &[u8]) -> usize {
    number_bytes(text.len() as u64) + text.len()
}

/// Puts a number behind what is there.
pub(in crate::machine) fn put_number(mut number: u64, run: &mut Vec<u8>) {
    while number >= 0x80 {
        run.push(0x80 | u8::try_from(number & 0x7f).expect("7 bits"));
        number >>= 7;
    }
    run.push(u8::try_from(number).expect("7 bits"));
}

/// Puts a text behind what is there.
pub(super) fn put_text(text: &[u8], run: &mut Vec<u8>) {
    put_number(text.len() as u64, run);
    run.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_takes_the_bytes_it_is_said_to_take() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 21, u32::MAX.into(), u64::MAX] {
            let mut run = Vec::new();
            put_number(number, &mut run);
            assert_eq!(run.len(), number_bytes(number), "{number}");
            assert_eq!(Walk::new(&run).number(), Some(number));
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            prop::collection::vec(any::<u8>(), 120..300)
        ]
    }

    proptest! {
        /// A list of pairs that is changed in the same way holds the same, in the same order.
        #[test]
        fn it_is_a_list_of_pairs(changes in prop::collection::vec((text(), prop::option::of(text()), any::<bool>()), 0..40)) {
            let (mut packed, mut model) = (Packed::default(), Vec::<(Vec<u8>, Vec<u8>)>::new());
            for (name, value, in_order) in changes {
                let known = model.iter().position(|(other, _)| *other == name);
                let place = packed.find(&name);
                prop_assert_eq!(known.is_some(), place.is_some());
                // Somebody reads meanwhile.
                let before = packed.clone();
                let old = model.clone();
                match (value, known.zip(place)) {
                    (Some(value), Some((at, place))) => {
                        prop_assert_eq!(packed.value(&place), &model[at].1[..]);
                        packed.set(&place, &value);
                        model[at].1 = value;
                    }
                    (Some(value), None) => {
                        packed.push(&name, &value);
                        model.push((name, value));
                    }
                    (None, Some((at, place))) if in_order => {
                        packed.remove(&place);
                        model.remove(at);
                    }
                    (None, Some((at, place))) => {
                        packed.swap_remove(&place);
                        model.swap_remove(at);
                    }
                    (None, None) => {}
                }
                for (packed, model) in [(&packed, &model), (&before, &old)] {
                    let pairs = model.iter().map(|(name, value)| (&name[..], &value[..]));
                    prop_assert!(packed.iter().eq(pairs));
                    prop_assert_eq!(packed.len(), model.len());
                }
            }
        }
    }
}
