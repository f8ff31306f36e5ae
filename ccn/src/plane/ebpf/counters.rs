//! What the programs count of links and VPCs: arrays with an element for each number, kind and processor
//! (`layout.h`), mapped, so that they are read without a system call.
//!
//! Programs add to them at any time; each writes only to the elements of the processor that it is on.

use std::io;

use super::layout::{COUNTER_RUN, KINDS, Tally};
use super::shared::Area;
use super::sys::{self, Map, Shape};
use crate::plane::Count;
use crate::plane::traffic::TwoWays;

/// Words of an element.
const WORDS: usize = size_of::<Tally>() / 8;

/// One array.
#[derive(Debug)]
pub(crate) struct Counters {
    name: &'static str,
    map: Map,
    area: Area,
    cpus: u32,
}

impl Counters {
    /// The map with this name, which has whole runs of every kind for every processor.
    pub(crate) fn of(name: &'static str, map: Map) -> io::Result<Counters> {
        let (cpus, shape) = (sys::cpus()?, map.shape());
        let runs = shape.entries % (COUNTER_RUN * KINDS * cpus) == 0;
        if shape.value as usize != size_of::<Tally>() || !runs {
            let text = format!("it is of another shape: {shape:?}");
            return Err(io::Error::other(text));
        }
        let area = Area::of(&map)?;
        Ok(Counters {
            name,
            map,
            area,
            cpus,
        })
    }

    /// The name of the map.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// How many numbers there are.
    pub(crate) fn numbers(&self) -> u32 {
        self.map.shape().entries / (KINDS * self.cpus)
    }

    /// Where the elements of a number are, one for each processor. As `count` of count.h.
    fn places(&self, number: u32, kind: u32) -> impl Iterator<Item = usize> + use<> {
        let (of_number, cpus) = (number / COUNTER_RUN, self.cpus);
        (0..cpus).map(move |cpu| {
            let run = (of_number * cpus + cpu) * KINDS + kind;
            (run * COUNTER_RUN + number % COUNTER_RUN) as usize
        })
    }

    /// What all processors have counted of a number.
    pub(crate) fn sum(&self, number: u32) -> TwoWays {
        let of = |kind| {
            let mut count = Count::default();
            for at in self.places(number, kind) {
                let tally: Tally = self.area.element(at);
                count.packets += tally.packets;
                count.bytes += tally.octets;
            }
            count
        };
        TwoWays {
            to_vpc: of(0),
            from_vpc: of(1),
            dropped: of(2),
        }
    }

    /// Sets a number that no map leads to to zero.
    pub(crate) fn reset(&self, number: u32) {
        for kind in 0..KINDS {
            for at in self.places(number, kind) {
                (at * WORDS..(at + 1) * WORDS).for_each(|word| self.area.store(word, 0));
            }
        }
    }

    /// A larger array that holds the same. What programs count meanwhile is not counted.
    pub(crate) fn grown(&self, numbers: u32) -> io::Result<Counters> {
        let runs = numbers.div_ceil(COUNTER_RUN);
        let shape = Shape {
            entries: runs.saturating_mul(COUNTER_RUN * KINDS * self.cpus),
            ..self.map.shape()
        };
        let other = Counters::of(self.name, Map::create(self.name, shape)?)?;
        // An element is where it was: higher numbers lie behind.
        for word in 0..self.map.shape().entries as usize * WORDS {
            let value = self.area.load(word);
            if value != 0 {
                other.area.store(word, value);
            }
        }
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Plain;
    use super::*;

    #[test]
    fn what_processors_counted_is_added_up_and_kept_as_there_are_more_numbers() {
        let cpus = sys::cpus().expect("counted");
        let shape = Shape {
            kind: sys::ARRAY,
            key: 4,
            value: size_of::<Tally>() as u32,
            entries: 2 * COUNTER_RUN * KINDS * cpus,
            flags: sys::MMAPABLE,
        };
        let map = Map::create("test", shape).expect("these tests need CAP_BPF");
        let counters = Counters::of("test", map).expect("mapped");
        assert_eq!(counters.numbers(), 2 * COUNTER_RUN);
        let number = COUNTER_RUN + 3;
        for kind in 0..KINDS {
            for cpu in 0..cpus {
                // As the programs find it.
                let run = (number / COUNTER_RUN * cpus + cpu) * KINDS + kind;
                let at = run * COUNTER_RUN + number % COUNTER_RUN;
                let tally = Tally {
                    packets: 1,
                    octets: u64::from(kind) + 60,
                };
                let set = counters.map().update(&at.to_ne_bytes(), tally.octets());
                set.expect("set");
            }
        }
        let of = |octets: u64| Count {
            packets: u64::from(cpus),
            bytes: octets * u64::from(cpus),
        };
        let expected = TwoWays {
            to_vpc: of(60),
            from_vpc: of(61),
            dropped: of(62),
        };
        let grown = counters.grown(3 * COUNTER_RUN + 1).expect("grown");
        assert_eq!(grown.numbers(), 4 * COUNTER_RUN);
        for counters in [&counters, &grown] {
            for other in 0..counters.numbers() {
                let expected = if other == number {
                    expected
                } else {
                    TwoWays::default()
                };
                assert_eq!(counters.sum(other), expected, "{other}");
            }
        }
        grown.reset(number);
        assert_eq!(grown.sum(number), TwoWays::default());
    }
}
