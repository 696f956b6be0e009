//! A table whose keys are small and never name a later occupant of the same place.

use std::fmt;
use std::marker::PhantomData;

/// A key: a place and the generation of its occupant.
pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Names no occupant, ever.
    pub(crate) const NOTHING: Self = Self { index: u32::MAX, generation: 0, of: PhantomData };

    /// A small number, unique among the present occupants; reused after removal.
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Key<T> {}
impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

struct Place<T> {
    generation: u32,
    occupant: Option<T>,
}

pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, occupant: T) -> Key<T> {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.occupant = Some(occupant);
            return Key { index, generation: place.generation, of: PhantomData };
        }
        let index = u32::try_from(self.places.len()).expect("fewer than 2^32 entries fit in memory");
        self.places.push(Place { generation: 0, occupant: Some(occupant) });
        Key { index, generation: 0, of: PhantomData }
    }

    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.places.get(key.index())?;
        if place.generation == key.generation { place.occupant.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation == key.generation { place.occupant.as_mut() } else { None }
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place = self.places.get_mut(key.index())?;
        if place.generation != key.generation {
            return None;
        }
        let occupant = place.occupant.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(occupant)
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key<T>, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(index, place)| {
            let key = Key { index: index as u32, generation: place.generation, of: PhantomData };
            place.occupant.as_mut().map(|occupant| (key, occupant))
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.occupant.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_does_not_name_the_next_occupant() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.index(), second.index());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }
}
