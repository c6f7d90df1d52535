"""What runs in the application's own processes while the doctor looks: in the child that imports it, in its worker."""
