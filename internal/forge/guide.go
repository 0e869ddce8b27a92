package forge

import "fmt"

// Guide says what to click in a forge to make a webhook to hookURL, and how to give slipway a
// token for statuses. It holds the secret: print it to who asked, and log it nowhere.
func (k Kind) Guide(hookURL, secret string) string {
	text, ok := guides[k]
	if !ok {
		return ""
	}
	return fmt.Sprintf(text, hookURL, secret)
}

// guides take the webhook's address and its secret, in this order.
var guides = map[Kind]string{
	GitHub: `GitHub: open the repository, Settings → Webhooks → Add webhook
  Payload URL   %s
  Content type  application/json
  Secret        %s
  SSL           Enable SSL verification
  Events        "Let me select individual events": Pushes, Pull requests
Statuses need a fine-grained token of this repository with Commit statuses: Read and write.
`,
	GitLab: `GitLab: open the project, Settings → Webhooks → Add new webhook
  URL           %[1]s
  Signing token %[2]s   (where GitLab offers none: the same as Secret token)
  Trigger       Push events (all branches), Tag push events, Merge request events
  SSL           Enable SSL verification
Statuses need a project access token with role Developer and scope api.
A push of more than three refs calls no webhook; slipway finds it when it next looks for itself.
`,
	Bitbucket: `Bitbucket: open the repository, Repository settings → Webhooks → Add webhook
  URL           %s
  Secret        %s
  Status        Active; leave "Skip certificate verification" off
  Triggers      Repository: Push; Pull request: Created, Updated, Merged, Declined
Statuses need a repository access token with Repositories: Read (and Pull requests: Read).
Pull requests from forks are not built: Bitbucket keeps no ref of them in the repository.
`,
	BitbucketDC: `Bitbucket Data Center: open the repository, Repository settings → Webhooks → Create webhook
  URL           %s
  Secret        %s
  Authentication None; leave "Skip certificate verification" off
  Events        Repository: Push; Pull request: Opened, Source branch updated, Modified, Merged, Declined, Deleted
Statuses need an HTTP access token of the repository with Repository read.
`,
	Gitea: `Gitea: open the repository, Settings → Webhooks → Add Webhook → Gitea
  Target URL    %s
  HTTP method   POST
  Content type  application/json
  Secret        %s
  Trigger on    Custom Events: Push, Pull Request, Pull Request Synchronized
Statuses need a token with repository: Read and Write.
On a private network the server's app.ini must allow the address: [webhook] ALLOWED_HOST_LIST.
`,
	Forgejo: `Forgejo: open the repository, Settings → Webhooks → Add webhook → Forgejo
  Target URL    %s
  HTTP method   POST
  Content type  application/json
  Secret        %s
  Trigger on    Custom events: Push; Pull request: Modification, Synchronized
Statuses need a token with repository: Read and write.
On a private network the server's app.ini must allow the address: [webhook] ALLOWED_HOST_LIST.
`,
	Generic: `Any other sender: POST a JSON document to
  %s
signed with
  %s
by the scheme of standard-webhooks.com: the headers webhook-id (one for each delivery, the same when
it is sent again), webhook-timestamp (Unix seconds, at most five minutes off) and webhook-signature
("v1," and the base64 of HMAC-SHA256 over ID.TIMESTAMP.BODY, keyed with what follows whsec_, decoded).
  {"event": "push", "repository": "example/shop", "ref": "refs/heads/main", "before": "COMMIT", "after": "COMMIT"}
`,
}
