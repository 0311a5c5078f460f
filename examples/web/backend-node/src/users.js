// NOT A LOGIN. Whoever picks a name is that user, so that you can try two users on your machine. Your app has a login
// already: put it here, and with it what it does against forged requests (CSRF).
//
// What matters to Strongroom is that `clientUserID` comes from here, from the backend's own knowledge of who is logged
// in, and never from a field that the browser fills in.
import { Refusal } from "./errors.js";

export const users = ["ada", "grace"];
const COOKIE = "example_user";

export function logIn(request, response) {
  const { user } = request.body ?? {};
  if (!users.includes(user)) throw new Refusal(400, "invalid_request");
  response.cookie(COOKIE, user, { httpOnly: true, sameSite: "strict" });
  response.json({ user });
}

/** The user of a request, or undefined. */
export function userOf(request) {
  const [, user] = new RegExp(`(?:^|; )${COOKIE}=([a-z]+)`).exec(request.headers.cookie ?? "") ?? [];
  return users.includes(user) ? user : undefined;
}

/** Lets only users through, and says who it is: `request.user`. */
export function loggedIn(request, _response, next) {
  request.user = userOf(request);
  next(request.user ? undefined : new Refusal(401, "not_logged_in"));
}
