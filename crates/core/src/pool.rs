//! A pool of fixed size. Every use of a place has a generation, so that a stale name is known as such.

#[cfg(feature = "model")]
mod canonical;

/// Uses of a place before its first: soon they wrap, in 32 bits and in 16, so that this is nothing special.
const FIRST: u32 = u32::MAX - 40;

/// A pool of at most `capacity` items.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "model"), derive(Hash))]
pub struct Pool<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Place<T> {
    generation: u32,
    item: Option<T>,
}

impl<T> Pool<T> {
    /// An empty pool; the only allocation that it ever makes.
    pub fn new(capacity: usize) -> Self {
        Pool {
            places: (0..capacity)
                .map(|_| Place {
                    generation: FIRST,
                    item: None,
                })
                .collect(),
            free: (0..capacity as u32).rev().collect(),
        }
    }

    /// How many items are in use.
    pub fn in_use(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many more items fit.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How many items fit.
    pub fn capacity(&self) -> u32 {
        self.places.len() as u32
    }

    /// Puts `item` into a free place: its index and the generation of this use. Panics if there is none: ask `free`.
    pub fn take(&mut self, item: T) -> (u32, u32) {
        let index = self.free.pop().expect("the pool was asked for room");
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.item = Some(item);
        (index, place.generation)
    }

    /// Empties a place that is in use.
    pub fn give_back(&mut self, index: u32) -> T {
        let item = self.places[index as usize].item.take().expect("a place in use");
        self.free.push(index);
        item
    }

    /// The item at `index`, if the place is in use.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.item.as_ref()
    }

    /// The item at `index`, if the place is in use.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.item.as_mut()
    }

    /// The generation of the present use of `index`, or of its last.
    pub fn generation(&self, index: u32) -> u32 {
        self.places[index as usize].generation
    }

    /// Whether `generation` is the present use of `index`.
    pub fn is_current(&self, index: u32, generation: u32) -> bool {
        self.places
            .get(index as usize)
            .is_some_and(|p| p.item.is_some() && p.generation == generation)
    }

    /// The same, where a message carries only the low 16 bits of the generation.
    pub fn is_current_16(&self, index: u32, generation: u16) -> bool {
        self.places
            .get(index as usize)
            .is_some_and(|p| p.item.is_some() && p.generation as u16 == generation)
    }

    /// The items in use, in order of their index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let items = self.places.iter().enumerate();
        items.filter_map(|(n, p)| p.item.as_ref().map(|item| (n as u32, item)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_used_again_is_another_use() {
        let mut pool = Pool::new(1);
        let (index, first) = pool.take('a');
        assert_eq!(pool.free(), 0);
        pool.give_back(index);
        let (again, second) = pool.take('b');
        assert_eq!(index, again);
        assert!(!pool.is_current(index, first));
        assert!(pool.is_current(index, second));
    }
}
