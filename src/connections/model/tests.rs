use proptest::prelude::*;

use crate::connections::model::*;

const PENDING: State = State::Pending(Held::Code);
const HELD: State = State::Pending(Held::Token);
const REVOKING: State = State::Revoking(RevocationKind::Delink, Held::Code);
const REVOKING_TOKEN: State = State::Revoking(RevocationKind::Delink, Held::Token);
const STATES: [State; 8] = [
    PENDING,
    HELD,
    State::Active,
    REVOKING,
    REVOKING_TOKEN,
    State::Orphaned,
    State::Revoked,
    State::Failed,
];

fn attempt() -> Attempt {
    Attempt { current: true, unanswered_before: false, window_open: true, probe: true }
}

fn refusal() -> Failure {
    Failure::own("CODE_UNKNOWN", "no such code")
}

fn another() -> ConnectionId {
    ConnectionId::new()
}

#[test]
fn a_token_under_an_old_lease_is_an_answer_and_nothing_else_is() {
    let stale = Attempt { current: false, ..attempt() };
    let alone = Login::default();
    let step = |answer| after_exchange(PENDING, stale, alone, answer);
    assert_eq!(step(Answer::Token), Step::Activate { supersedes: None });
    assert_eq!(step(Answer::Refused(refusal())), Step::Nothing);
    assert_eq!(step(Answer::Unanswered("x".into())), Step::Nothing);
    assert_eq!(step(Answer::NotProcessed("x".into())), Step::Nothing);
}

#[test]
fn a_pending_connection_looks_at_its_login_before_it_takes_the_token() {
    let (older, newer) = (another(), another());
    for (login, step) in [
        (Login::default(), Step::Activate { supersedes: None }),
        (
            Login { older_active: Some(older), ..Login::default() },
            Step::Activate { supersedes: Some(older) },
        ),
        (Login { newer_active: Some(newer), ..Login::default() }, Step::GiveWay { to: newer }),
        (Login { revoking: true, ..Login::default() }, Step::Hold),
        (
            Login { revoking: true, newer_active: Some(newer), ..Login::default() },
            Step::GiveWay { to: newer },
        ),
    ] {
        assert_eq!(after_exchange(PENDING, attempt(), login, Answer::Token), step, "{login:?}");
        assert_eq!(pending_takes_token(login), step, "held, it follows the same rules");
    }
    let taken = Login { of_another_user: true, ..Login::default() };
    let step = after_exchange(PENDING, attempt(), taken, Answer::Token);
    assert!(matches!(step, Step::Fail(Status::Rejected, f) if f.kind == Failure::OF_ANOTHER_USER));
}

#[test]
fn an_orphan_takes_a_late_token_unless_something_newer_is_there() {
    let step = |login| after_exchange(State::Orphaned, attempt(), login, Answer::Token);
    let older = another();
    assert_eq!(step(Login::default()), Step::Activate { supersedes: None });
    let with_older = Login { older_active: Some(older), ..Login::default() };
    assert_eq!(step(with_older), Step::Activate { supersedes: Some(older) });
    for login in [
        Login { newer: true, ..Login::default() },
        Login { of_another_user: true, ..Login::default() },
        Login { revoking: true, ..Login::default() },
    ] {
        assert_eq!(step(login), Step::DropToken, "{login:?}");
    }
}

#[test]
fn a_refusal_rejects_or_orphans_by_what_went_out_before() {
    let step = |state, unanswered_before| {
        let attempt = Attempt { unanswered_before, ..attempt() };
        after_exchange(state, attempt, Login::default(), Answer::Refused(refusal()))
    };
    assert_eq!(step(PENDING, false), Step::Fail(Status::Rejected, refusal()));
    assert!(
        matches!(step(PENDING, true), Step::Fail(Status::Orphaned, f) if f.kind == "answer_lost")
    );
    assert!(matches!(step(REVOKING, false), Step::EndRevocation { confirmed: true, .. }));
    assert!(matches!(step(REVOKING, true), Step::EndRevocation { confirmed: false, .. }));
}

#[test]
fn silence_is_probed_for_until_the_window_closes_or_probing_is_off() {
    let step = |state, attempt, answer| after_exchange(state, attempt, Login::default(), answer);
    let silence = || Answer::Unanswered("x".into());
    let not_now = || Answer::NotProcessed("x".into());
    let closed = Attempt { window_open: false, ..attempt() };
    let no_probe = Attempt { probe: false, ..attempt() };

    assert_eq!(
        step(PENDING, attempt(), silence()),
        Step::TryAgain { unanswered: true, what: "x".into() }
    );
    assert_eq!(
        step(PENDING, attempt(), not_now()),
        Step::TryAgain { unanswered: false, what: "x".into() }
    );
    assert_eq!(
        step(PENDING, no_probe, not_now()),
        Step::TryAgain { unanswered: false, what: "x".into() }
    );
    assert!(matches!(step(PENDING, no_probe, silence()), Step::Fail(Status::Orphaned, _)));
    assert!(
        matches!(step(PENDING, closed, silence()), Step::Fail(Status::Expired, f) if f.kind == "outcome_unknown")
    );
    assert!(
        matches!(step(PENDING, closed, not_now()), Step::Fail(Status::Expired, f) if f.kind == "code_expired")
    );
    assert!(matches!(
        step(REVOKING, closed, silence()),
        Step::EndRevocation { confirmed: false, .. }
    ));
    assert!(matches!(
        step(REVOKING, closed, not_now()),
        Step::EndRevocation { confirmed: true, .. }
    ));
    assert!(matches!(
        step(REVOKING, no_probe, silence()),
        Step::EndRevocation { confirmed: false, .. }
    ));
    assert!(matches!(
        step(REVOKING, attempt(), silence()),
        Step::TryAgain { unanswered: true, .. }
    ));
}

#[test]
fn asking_for_a_revocation_does_what_the_state_allows() {
    use RevocationStep::{Already, Begin, End, NotActive};
    for (state, leased, told, untold) in [
        (PENDING, false, End { confirmed: true }, End { confirmed: true }),
        (PENDING, true, Begin, End { confirmed: false }),
        (HELD, false, Begin, End { confirmed: false }),
        (HELD, true, Begin, End { confirmed: false }),
        (State::Active, true, Begin, End { confirmed: false }),
        (REVOKING, true, Already, End { confirmed: false }),
        (REVOKING_TOKEN, true, Already, End { confirmed: false }),
        (State::Revoked, true, Already, Already),
        (State::Orphaned, true, NotActive, NotActive),
        (State::Failed, true, NotActive, NotActive),
    ] {
        assert_eq!(on_revocation(state, leased, true), told, "{state:?}");
        assert_eq!(on_revocation(state, leased, false), untold, "{state:?}");
    }
}

#[test]
fn delinked_is_said_only_where_dapi_confirmed() {
    assert_eq!(RevocationKind::Delink.ends(true), Status::Delinked);
    assert_eq!(RevocationKind::Delink.ends(false), Status::Invalidated);
    assert_eq!(RevocationKind::Invalidate.ends(true), Status::Invalidated);
}

fn any_login() -> impl Strategy<Value = Login> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(of_another_user, revoking, older, newer_active, newer)| Login {
            of_another_user,
            active_of_another_user: of_another_user && newer,
            revoking,
            older_active: older.then(another),
            newer_active: newer_active.then(another),
            newer: newer || newer_active,
        },
    )
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(current, unanswered_before, window_open, probe)| Attempt {
            current,
            unanswered_before,
            window_open,
            probe,
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Token),
        Just(Answer::Refused(refusal())),
        Just(Answer::Unanswered("x".into())),
        Just(Answer::NotProcessed("x".into())),
    ]
}

proptest! {
    /// Whatever comes, in whatever order.
    #[test]
    fn no_answer_undoes_an_end_but_an_orphans(
        state in prop::sample::select(&STATES), attempt in any_attempt(),
        login in any_login(), answer in any_answer(),
    ) {
        let step = after_exchange(state, attempt, login, answer);
        if matches!(state, State::Active | State::Revoked | State::Failed) {
            prop_assert!(matches!(step, Step::Nothing | Step::DropToken), "{step:?}");
        }
        if state == State::Orphaned {
            prop_assert!(matches!(step, Step::Nothing | Step::DropToken | Step::Activate { .. }), "{step:?}");
        }
    }

    #[test]
    fn a_login_in_use_is_never_delinked_for_another_connection(
        state in prop::sample::select(&STATES), attempt in any_attempt(), login in any_login(),
    ) {
        let step = after_exchange(state, attempt, login, Answer::Token);
        if login.active().is_some() || login.of_another_user {
            prop_assert_ne!(step, Step::Delink);
        }
    }

    #[test]
    fn nothing_becomes_active_beside_another_active_one_of_its_login(
        state in prop::sample::select(&STATES), attempt in any_attempt(),
        login in any_login(), answer in any_answer(),
    ) {
        if let Step::Activate { supersedes } = after_exchange(state, attempt, login, answer) {
            prop_assert!(!login.of_another_user && login.newer_active.is_none() && !login.revoking);
            prop_assert_eq!(supersedes, login.older_active);
        }
    }

    #[test]
    fn a_revoked_connection_never_becomes_usable(
        attempt in any_attempt(), login in any_login(), answer in any_answer(),
        state in prop::sample::select(&[REVOKING, REVOKING_TOKEN, State::Revoked]),
    ) {
        let step = after_exchange(state, attempt, login, answer);
        let usable = matches!(step, Step::Activate { .. } | Step::Hold);
        prop_assert!(!usable, "{:?}", step);
    }

    #[test]
    fn nothing_is_called_confirmed_while_a_token_may_live_unknown(
        attempt in any_attempt(), login in any_login(), answer in any_answer(),
    ) {
        let step = after_exchange(REVOKING, attempt, login, answer.clone());
        if let Step::EndRevocation { confirmed: true, .. } = step {
            prop_assert!(!attempt.unanswered_before && !matches!(answer, Answer::Unanswered(_)));
        }
    }
}
