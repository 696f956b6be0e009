use proptest::prelude::*;

use super::*;

// The core itself never reads a clock; a test needs some instant to count from.
#[allow(clippy::disallowed_methods)]
fn epoch() -> Instant {
    Instant::now()
}

const LADDER: &[u64] = &[150_000, 500_000, 1_500_000];

/// A track, with what its layers cost.
#[derive(Clone)]
enum Track {
    Voice,
    Picture(Vec<u64>, u8),
}
use Track::Voice;

fn picture(priority: u8) -> Track {
    Track::Picture(LADDER.to_vec(), priority)
}

/// A subscriber with its tracks.
struct Subscriber {
    allocator: Allocator,
    costs: Vec<u64>,
    items: Vec<Item>,
    now: Instant,
}

impl Subscriber {
    fn new(tracks: &[Track]) -> Self {
        let mut costs = Vec::new();
        let mut request = |track: &Track| match track {
            Voice => Request::Voice { bitrate: 32_000 },
            Track::Picture(layers, priority) => {
                let span = Span { first: costs.len(), count: layers.len() };
                costs.extend_from_slice(layers);
                Request::Picture { layers: span, priority: *priority }
            }
        };
        let items = tracks.iter().map(|track| Item::new(request(track), Memory::default())).collect();
        Self { allocator: Allocator::default(), costs, items, now: epoch() }
    }

    /// The layers that are granted after this long with this estimate in kbit/s.
    fn run(&mut self, seconds: u64, kbps: u64) -> Vec<Option<usize>> {
        for _ in 0..seconds * 5 {
            self.now += Duration::from_millis(200);
            self.allocator.allocate(self.now, kbps * 1000, &self.costs, &mut self.items);
        }
        self.items.iter().map(|item| item.grant().layer).collect()
    }
}

#[test]
fn voice_then_every_picture_then_better_ones_by_priority() {
    let tracks = [picture(0), Voice, picture(2), picture(0)];
    let shares = |kbps| Subscriber::new(&tracks).run(1, kbps);
    assert_eq!(shares(30), [None, Some(0), None, None]);
    assert_eq!(shares(200), [None, Some(0), Some(0), None], "one fits, the one that matters more");
    assert_eq!(shares(500), [Some(0), Some(0), Some(0), Some(0)]);
    assert_eq!(shares(900), [Some(0), Some(0), Some(1), Some(0)]);
    assert_eq!(shares(1400), [Some(1), Some(0), Some(1), Some(0)]);
    assert_eq!(shares(5000), [Some(2), Some(0), Some(2), Some(2)]);
}

#[test]
fn suspends_below_the_limit_and_resumes_clearly_above_it() {
    let mut subscriber = Subscriber::new(&[Track::Picture(vec![20_000], 0)]);
    assert_eq!(subscriber.run(1, 45), [Some(0)]);
    assert_eq!(subscriber.run(1, 39), [None]);
    assert!(subscriber.items[0].grant().is_suspended);
    assert_eq!(subscriber.items[0].grant().wanted, Some(0), "its publisher goes on");
    assert_eq!(subscriber.run(10, 45), [None], "not yet clearly more");
    assert_eq!(subscriber.run(10, 62), [Some(0)]);
    assert!(!subscriber.items[0].grant().is_suspended);
}

#[test]
fn goes_down_at_once_and_up_with_room_and_after_a_while() {
    let mut subscriber = Subscriber::new(&[picture(0)]);
    assert_eq!(subscriber.run(1, 2000), [Some(2)]);
    assert_eq!(subscriber.run(1, 1499), [Some(1)]);
    assert_eq!(subscriber.run(5, 1570), [Some(1)], "fits, but with nothing to spare");
    assert_eq!(subscriber.run(1, 1700), [Some(2)]);
    assert_eq!(subscriber.run(1, 1400), [Some(1)]);
    assert_eq!(subscriber.run(1, 1700), [Some(1)], "it went down just now");
    assert_eq!(subscriber.run(4, 1700), [Some(2)]);
}

#[test]
fn publishers_are_told_what_could_be_watched_soon() {
    let mut subscriber = Subscriber::new(&[Voice, picture(0)]);
    subscriber.run(1, 300);
    assert_eq!(subscriber.items[1].grant().wanted, Some(1));
    subscriber.run(5, 1000);
    assert_eq!(subscriber.items[1].grant().wanted, Some(2));
    assert_eq!(Allocator::wanted(&subscriber.costs, &subscriber.items), 1_532_000);
}

#[test]
fn an_item_without_layers_is_not_suspended() {
    let mut subscriber = Subscriber::new(&[Track::Picture(Vec::new(), 0)]);
    assert_eq!(subscriber.run(1, 10), [None]);
    assert_eq!(subscriber.items[0].grant(), Grant::default());
}

fn ladders() -> impl Strategy<Value = Vec<(Vec<u64>, u8)>> {
    let ladder = proptest::collection::vec(20_000u64..900_000, 1..6).prop_map(|mut steps| {
        for index in 1..steps.len() {
            steps[index] += steps[index - 1];
        }
        steps
    });
    proptest::collection::vec((ladder, 0u8..3), 1..8)
}

fn tracks(ladders: &[(Vec<u64>, u8)], voices: usize) -> Vec<Track> {
    let pictures = ladders.iter().map(|(layers, priority)| Track::Picture(layers.clone(), *priority));
    pictures.chain(std::iter::repeat_n(Voice, voices)).collect()
}

fn cost(Subscriber { costs, items, .. }: &Subscriber) -> u64 {
    items.iter().filter_map(|item| item.layers(costs).get(item.grant().layer?)).sum()
}

proptest! {
    #[test]
    fn never_more_than_there_is(
        ladders in ladders(), voices in 0usize..4, estimates in proptest::collection::vec(1u64..6000, 1..40),
    ) {
        let mut subscriber = Subscriber::new(&tracks(&ladders, voices));
        for kbps in estimates {
            subscriber.run(1, kbps);
            prop_assert!(cost(&subscriber) <= (kbps * 1000).saturating_sub(32_000 * voices as u64));
        }
    }

    #[test]
    fn more_is_never_worse(ladders in ladders(), kbps in 1u64..6000, more in 0u64..3000) {
        let tracks = tracks(&ladders, 1);
        let (mut less_of, mut more_of) = (Subscriber::new(&tracks), Subscriber::new(&tracks));
        less_of.run(1, kbps);
        more_of.run(1, kbps + more);
        prop_assert!(cost(&less_of) <= cost(&more_of));
    }

    #[test]
    fn equals_are_a_layer_apart_at_most(count in 1usize..9, priority in 0u8..3, kbps in 1u64..9000) {
        let layers = Subscriber::new(&vec![picture(priority); count]).run(1, kbps);
        let rank = |layer: &Option<usize>| layer.map_or(0, |it| it + 1);
        let (least, most) = (layers.iter().map(rank).min().unwrap(), layers.iter().map(rank).max().unwrap());
        prop_assert!(most - least <= 1, "{layers:?}");
    }

    #[test]
    fn an_estimate_that_trembles_moves_nothing(
        ladders in ladders(), kbps in 100u64..6000, noise in proptest::collection::vec(0u64..=40, 200),
    ) {
        let mut subscriber = Subscriber::new(&tracks(&ladders, 1));
        let mut settled = Vec::new();
        for _ in 0..4 {
            subscriber.run(10, kbps * 96 / 100);
            settled = subscriber.run(10, kbps);
        }
        for less in noise {
            let layers = subscriber.run(1, kbps * (1000 - less) / 1000);
            prop_assert_eq!(&layers, &settled);
        }
    }
}
