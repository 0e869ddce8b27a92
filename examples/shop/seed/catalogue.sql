INSERT INTO product VALUES
	(1, 'apple', 30, 100),
	(2, 'bread', 250, 12),
	(3, 'coffee', 480, 40);
