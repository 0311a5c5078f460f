import { useId, useState } from "react";
import { type Account, api, type Connection } from "./api";
import { Trouble } from "./Trouble";
import { useRead } from "./useLoad";
import { day, money } from "./words";

/** How many transactions are shown at first. */
const FIRST = 10;

interface AccountListProps {
  connection: Connection;
  accounts: Account[];
  onChange: () => void;
}

export function AccountList({ accounts, ...rest }: AccountListProps) {
  if (accounts.length === 0) return <p className="empty">This login has no accounts.</p>;
  return (
    <ul className="accounts">
      {accounts.map((account) => (
        <AccountRow key={account.id} account={account} {...rest} />
      ))}
    </ul>
  );
}

interface AccountProps {
  connection: Connection;
  account: Account;
  onChange: () => void;
}

function AccountRow(props: AccountProps) {
  const { account } = props;
  const [open, setOpen] = useState(false);
  const id = useId();
  return (
    <li>
      <button type="button" className="account" aria-expanded={open} aria-controls={id} onClick={() => setOpen(!open)}>
        <span>
          {account.name} {account.ending && <small>···· {account.ending}</small>}
        </span>
        <strong>{money(account.balance, account.currency)}</strong>
      </button>
      <div id={id} hidden={!open}>
        {open && <Transactions {...props} />}
      </div>
    </li>
  );
}

function Transactions({ connection, account, onChange }: AccountProps) {
  const [all, setAll] = useState(false);
  const [{ value, error, loading }, reload] = useRead(() => api.transactions(connection, account.id), onChange);
  if (error) return <Trouble error={error} onRetry={reload} />;
  if (!value) return loading ? <div className="skeleton" role="status" aria-label="Reading transactions" /> : null;
  if (value.length === 0) return <p className="empty">Nothing in the last 30 days.</p>;
  const shown = all ? value : value.slice(0, FIRST);
  return (
    <>
      <table>
        <caption className="visually-hidden">Transactions of {account.name} in the last 30 days</caption>
        <thead className="visually-hidden">
          <tr>
            <th scope="col">Day</th>
            <th scope="col">What</th>
            <th scope="col">Amount</th>
          </tr>
        </thead>
        <tbody>
          {shown.map(({ date, description, amount, currency }, index) => (
            <tr key={index}>
              <td>{day(date)}</td>
              <td>{description}</td>
              <td className={amount > 0 ? "in" : ""}>{money(amount, currency)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {value.length > FIRST && (
        <button type="button" className="quiet" onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `Show all ${value.length}`}
        </button>
      )}
    </>
  );
}
