package git

import "github.com/go-git/go-git/v5/config"

// Identity is who the user's own git configuration says he is; zero where it
// says nothing.
func Identity() Person {
	c, err := config.LoadConfig(config.GlobalScope)
	if err != nil {
		return Person{}
	}
	return Person{c.User.Name, c.User.Email}
}
