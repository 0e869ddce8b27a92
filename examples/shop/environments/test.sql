-- What test sells. Run at every start: rows that are there stay as they are.
CREATE TABLE IF NOT EXISTS product (
	id INT PRIMARY KEY,
	name VARCHAR(80) NOT NULL,
	cents INT NOT NULL,
	stock INT NOT NULL
);
CREATE TABLE IF NOT EXISTS sale (
	id INT PRIMARY KEY AUTO_INCREMENT,
	product INT NOT NULL REFERENCES product (id),
	pieces INT NOT NULL
);
INSERT IGNORE INTO product VALUES
	(1, 'test apple', 1, 1000);
