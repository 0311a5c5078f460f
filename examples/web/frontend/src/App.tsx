import { useState } from "react";
import { api, type Start } from "./api";
import { Home } from "./Home";
import { Trouble } from "./Trouble";
import { useLoad } from "./useLoad";

export function App() {
  const [start, reload] = useLoad(api.start);
  const { value, error } = start;
  return (
    <>
      <header className="top">
        <p className="brand">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M9 8v16M14 8v16M19 8v16M24 8v16M5 21 27 11" />
          </svg>
          Tally
        </p>
        {value?.user && <UserMenu start={value} onChange={reload} />}
      </header>
      <main>
        {!value && !error && <p className="empty" role="status">Loading…</p>}
        {!value && error && <Trouble error={error} onRetry={reload} />}
        {value && !value.user && <SignIn users={value.users} onDone={reload} />}
        {/* The key: another user gets another Home, and nothing of the last one's. */}
        {value?.user && <Home key={value.user} start={value} user={value.user} />}
      </main>
      <footer>
        <p>An example to copy. No bank, no money and no person in it is real.</p>
      </footer>
    </>
  );
}

interface SignInProps {
  users: string[];
  onDone: () => Promise<void>;
}

/** In place of your login. */
function SignIn({ users, onDone }: SignInProps) {
  const [failed, setFailed] = useState(false);
  const choose = (user: string) => api.logIn(user).then(onDone, () => setFailed(true));
  return (
    <section className="card narrow" aria-labelledby="sign-in">
      <h1 id="sign-in">Who are you?</h1>
      <p>This takes the place of your app’s login: choose a name, and you are that user.</p>
      <div className="row">
        {users.map((user) => (
          <button key={user} type="button" className="primary" onClick={() => void choose(user)}>
            {user}
          </button>
        ))}
      </div>
      {failed && <p className="note bad" role="alert">That did not work. Please try again.</p>}
    </section>
  );
}

function UserMenu({ start, onChange }: { start: Start; onChange: () => Promise<void> }) {
  return (
    <label className="user">
      User
      <select value={start.user ?? ""} onChange={(event) => void api.logIn(event.target.value).then(onChange, onChange)}>
        {start.users.map((user) => (
          <option key={user}>{user}</option>
        ))}
      </select>
    </label>
  );
}
