use super::*;

fn apps() -> (AppId, AppId) {
    (AppId::new(), AppId::new())
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn no_more_calls_pass_than_the_gate_is_wide_however_they_are_shared() {
    for slots in [1, 2, 3, 4, 5, 8, 16, 100, 1024] {
        let (mut rules, now) = (Rules::new(slots), Instant::now());
        let mut all = 0;
        for _ in 0..slots {
            let app = AppId::new();
            for lane in [Lane::Call, Lane::Delink, Lane::Exchange] {
                all += rules.take(app, lane, slots + 1, now);
            }
        }
        assert_eq!(all, slots);
        assert!(!rules.try_enter(AppId::new(), Lane::Exchange, now));
    }
}

#[test]
fn data_calls_leave_slots_to_exchanges_and_delinkings_and_an_app_to_those_that_come_later() {
    for slots in 4..200 {
        let ((a, b), now) = (apps(), Instant::now());
        let mut rules = Rules::new(slots);
        assert!(rules.take(a, Lane::Call, slots, now) >= slots / 2);
        assert!(rules.try_enter(a, Lane::Delink, now), "{slots}");
        assert!(slots < 8 || rules.try_enter(a, Lane::Exchange, now), "{slots}");
        rules.take(a, Lane::Exchange, slots, now);
        assert!(rules.try_enter(b, Lane::Exchange, now), "{slots}");
    }
    // Two slots: one is reserved for exchanges. One slot: first come, first served.
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(2);
    assert_eq!(rules.take(a, Lane::Call, 2, now), 1);
    assert!(!rules.try_enter(b, Lane::Delink, now) && rules.try_enter(b, Lane::Exchange, now));
    assert_eq!(Rules::new(1).take(a, Lane::Call, 2, now), 1);
}

#[test]
fn a_slot_that_becomes_free_goes_to_the_exchange_then_to_the_delinking_then_to_the_call() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(1);
    assert!(rules.try_enter(a, Lane::Call, now));
    rules.wait(a, Lane::Call, 1, now);
    rules.one_more(a, Lane::Delink, now);
    rules.one_more(b, Lane::Exchange, now);
    rules.leave(a, Lane::Call, now);
    assert_eq!(rules.dispatch(now), Dispatch { granted: vec![], background: true });
    assert!(!rules.try_enter(a, Lane::Delink, now));
    assert!(rules.try_enter(b, Lane::Exchange, now));
    rules.leave(b, Lane::Exchange, now);
    assert_eq!(rules.dispatch(now), Dispatch { granted: vec![], background: true });
    assert!(rules.try_enter(a, Lane::Delink, now));
    rules.leave(a, Lane::Delink, now);
    let granted = vec![(1, a, Lane::Call)];
    assert_eq!(rules.dispatch(now), Dispatch { granted, background: false });
}

#[test]
fn an_app_that_was_turned_away_gets_its_slot_before_one_that_holds_more() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(4);
    let held = rules.take(a, Lane::Call, 4, now);
    (0..10).for_each(|waiter| rules.wait(a, Lane::Call, waiter, now));
    // The slot that is left to newcomers.
    assert_eq!((held, rules.take(b, Lane::Call, 4, now)), (2, 1));
    rules.wait(b, Lane::Call, 100, now);
    rules.leave(a, Lane::Call, now);
    assert_eq!(
        rules.dispatch(now).granted,
        [(0, a, Lane::Call)],
        "both hold one, and a waited longer"
    );
    rules.leave(a, Lane::Call, now);
    assert_eq!(rules.dispatch(now).granted, [(100, b, Lane::Call)]);
}

#[test]
fn with_one_slot_two_apps_alternate() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(1);
    assert!(rules.try_enter(a, Lane::Call, now));
    for waiter in 0..6 {
        rules.wait(if waiter < 3 { a } else { b }, Lane::Call, waiter, now);
    }
    let mut order = Vec::new();
    let mut holder = a;
    for _ in 0..6 {
        rules.leave(holder, Lane::Call, now);
        let granted = rules.dispatch(now).granted;
        holder = granted[0].1;
        order.push(granted[0].0);
    }
    assert_eq!(order, [3, 0, 4, 1, 5, 2]);
}

#[test]
fn a_demand_that_is_not_repeated_keeps_a_slot_for_a_few_seconds_only() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(1);
    rules.one_more(b, Lane::Exchange, now);
    assert!(!rules.try_enter(a, Lane::Call, now + seconds(2)));
    assert!(rules.try_enter(a, Lane::Call, now + seconds(4)));
}

#[test]
fn a_call_that_has_waited_for_long_does_not_wait_for_ever_behind_another_apps_exchanges() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(1);
    assert!(rules.try_enter(a, Lane::Exchange, now));
    rules.wait(b, Lane::Call, 7, now);
    let later = now + seconds(4);
    rules.declare(Lane::Exchange, &HashMap::from([(a, 500)]), later);
    rules.leave(a, Lane::Exchange, later);
    assert_eq!(rules.dispatch(later).granted, [(7, b, Lane::Call)]);
}

#[test]
fn free_slots_are_withheld_from_no_app() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(100);
    rules.declare(Lane::Exchange, &HashMap::from([(b, 20)]), now);
    assert_eq!(rules.take(a, Lane::Call, 30, now), 30);
}

#[test]
fn a_held_lane_keeps_no_place() {
    let ((a, b), now) = (apps(), Instant::now());
    let mut rules = Rules::new(1);
    rules.one_more(b, Lane::Exchange, now);
    rules.hold(b, Lane::Exchange, now + seconds(30));
    assert!(!rules.try_enter(b, Lane::Exchange, now));
    assert!(rules.try_enter(a, Lane::Call, now));
    rules.leave(a, Lane::Call, now);
    assert!(rules.try_enter(b, Lane::Exchange, now + seconds(31)));
}
