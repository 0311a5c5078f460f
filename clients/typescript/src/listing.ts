/**
 * A list. `await` it for one page, iterate over it for every item of every page:
 *
 * ```js
 * const { connections, nextCursor } = await client.listConnections({ limit: 20 });
 * for await (const connection of client.listConnections({ status: "active" })) …
 * ```
 */
export class Listing<Page extends object, Item> implements PromiseLike<Page>, AsyncIterable<Item> {
  readonly #fetch: (cursor: string | undefined) => Promise<Page>;
  readonly #items: (page: Page) => readonly Item[];
  #first: Promise<Page> | undefined;

  constructor(fetch: (cursor: string | undefined) => Promise<Page>, items: (page: Page) => readonly Item[]) {
    this.#fetch = fetch;
    this.#items = items;
  }

  then<A = Page, B = never>(
    fulfilled?: ((page: Page) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#first ??= this.#fetch(undefined);
    return this.#first.then(fulfilled, rejected);
  }

  /** The pages, one request each. */
  async *pages(): AsyncGenerator<Page, void, undefined> {
    let cursor: string | undefined;
    do {
      const page = await this.#fetch(cursor);
      yield page;
      cursor = (page as { nextCursor?: string | null }).nextCursor ?? undefined;
    } while (cursor !== undefined);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    for await (const page of this.pages()) yield* this.#items(page);
  }
}
